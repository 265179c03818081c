//! What operators change while the node runs: queues and limits, which the store keeps for all nodes, and the policy of this
//! node.

use hodei_core::store::{Limit, LimitOf, LimitUse, QueuePolicy, Scope};
use hodei_core::{Name, Result, Tenant};

use super::audit::{Asked, QUEUES_NAMED};
use super::handle::{Orchestrator, stopped};
use crate::driver::Message;
use crate::machine::Policy;

impl Orchestrator {
    /// Changes where jobs run, from the next decision on. What is not said holds no more.
    ///
    /// It holds on this node, and as long as this node: give each the same, by
    /// [`OrchestratorBuilder::policy`](super::OrchestratorBuilder::policy) when it starts. Queues and limits are kept by the
    /// store and hold on all nodes.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the node has stopped.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have changed it.
    pub async fn set_policy(&self, policy: Policy) -> Result<()> {
        self.note(|| vec![Asked::new("policy.set", None, "node").detail(about(&policy))]).await?;
        match self.tell(|| Message::Policy(Box::new(policy.clone()))).await {
            0 => Err(stopped("orchestrator.set_policy")),
            _ => Ok(()),
        }
    }

    /// Sets how many jobs of the whole store, of a tenant, of a queue or of a key may be leased at once, and how fast they may be
    /// claimed, on all nodes, from the next claim on. What is leased already counts, and stays leased where that is more.
    ///
    /// # Errors
    ///
    /// `Config` for one of the whole store, where the store cannot hold it
    /// ([`Capabilities::limits_all`](hodei_core::store::Capabilities::limits_all)), and for a rate, where it holds none
    /// ([`Capabilities::rates`](hodei_core::store::Capabilities::rates)); `Invalid` for a rate that nobody could hold
    /// ([`Limit::check`]); else what the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have set it; set it again.
    ///
    /// # Examples
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// use hodei_core::store::{Limit, LimitOf, Rate, Scope};
    /// use hodei_core::{Name, Tenant};
    ///
    /// let hodei = hodei_sched::Orchestrator::builder().start().await?;
    /// let (tenant, database) = (Tenant::default(), Name::new("database")?);
    /// hodei.set_limit(Limit::all(1_000)).await?;
    /// // Four at once, and no more than a hundred in a second.
    /// let rate = Rate::new(100, std::time::Duration::from_secs(1)).burst(10);
    /// hodei.set_limit(Limit::key(tenant.clone(), database.clone(), 4).rate(rate)).await?;
    /// let limits = hodei.limits(&Scope::All).await?;
    /// assert_eq!((limits.len(), limits[0].in_use), (2, 0));
    /// assert!(hodei.remove_limit(&LimitOf::Key(tenant, database)).await?);
    /// # hodei.shutdown().await;
    /// # Ok::<(), hodei_core::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn set_limit(&self, limit: Limit) -> Result<()> {
        self.note(|| vec![limited("limit.set", &limit.of).detail(bounds(&limit))]).await?;
        self.store().set_limit(limit).await
    }

    /// Removes a limit on all nodes, from the next claim on; `false` when there was none.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have removed it; remove it again.
    pub async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        self.note(|| vec![limited("limit.remove", of)]).await?;
        self.store().remove_limit(of).await
    }

    /// Lists the limits that are set, with how much of each is used now, the widest first.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        self.store().limits(scope).await
    }

    /// Sets how a queue of a tenant is served on all nodes: its weight against others, and whether it is paused.
    ///
    /// # Errors
    ///
    /// `Invalid` when the weight is zero; else what the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have set it; set it again.
    pub async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        let how = |policy: &QueuePolicy| format!("weight {}, paused {}", policy.weight, policy.paused);
        self.note(|| vec![queue("queue.set", &policy.tenant, &policy.queue).detail(how(&policy))]).await?;
        self.store().set_queue(policy).await
    }

    /// Lists the queues that somebody set, by tenant and name; all others weigh 1 and are not paused.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        self.store().queues(scope).await
    }

    /// Has nothing claimed any more from a queue of a tenant, on all nodes; what is claimed runs on. It keeps its weight,
    /// unless somebody sets another one at the same time.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have paused it; pause it again.
    pub async fn pause_queue(&self, tenant: &Tenant, queue: &Name) -> Result<()> {
        self.note(|| vec![self::queue("queue.pause", tenant, queue)]).await?;
        self.serve(tenant, queue, false).await
    }

    /// Has a queue of a tenant served again, as [`Orchestrator::pause_queue`] stopped it.
    ///
    /// # Errors
    ///
    /// What the store says.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have resumed it; resume it again.
    pub async fn resume_queue(&self, tenant: &Tenant, queue: &Name) -> Result<()> {
        self.note(|| vec![self::queue("queue.resume", tenant, queue)]).await?;
        self.serve(tenant, queue, true).await
    }

    async fn serve(&self, tenant: &Tenant, queue: &Name, serves: bool) -> Result<()> {
        let known = self.store().queue(tenant, queue).await?;
        let weight = known.map_or(1, |known| known.weight);
        let (tenant, queue) = (tenant.clone(), queue.clone());
        self.store().set_queue(QueuePolicy { tenant, queue, paused: !serves, weight }).await
    }
}

fn limited(action: &'static str, of: &LimitOf) -> Asked {
    Asked::new(action, of.tenant(), format!("limit of {of}"))
}

fn bounds(limit: &Limit) -> String {
    let max = limit.max;
    match limit.rate {
        None => format!("max {max}"),
        Some(rate) => format!("max {max}, {} tokens in {:?}, burst {}", rate.tokens, rate.per, rate.burst),
    }
}

fn queue(action: &'static str, tenant: &Tenant, queue: &Name) -> Asked {
    Asked::new(action, Some(tenant), format!("queue {queue}"))
}

fn about(policy: &Policy) -> String {
    let queues: Vec<&str> = policy.rules.keys().map(Name::as_str).take(QUEUES_NAMED).collect();
    format!("{} rules of queues: {}", policy.rules.len(), queues.join(", "))
}
