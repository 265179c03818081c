//! The clients: they act, and try again until they are answered.

use std::sync::Arc;
use std::time::Duration;

use hodei_core::Result;
use hodei_core::codec::Codecs;
use hodei_core::store::{JobStore, Policies, Scope, Store};

use super::agent::AgentModel;
use super::door::Door;
use super::task::{Done, Of};
use super::workload::Act;
use super::world::{Event, World};
use crate::cron::{Bell, Schedules};

/// How long a client waits before it tries again.
const AGAIN: Duration = Duration::from_millis(300);

impl<A: AgentModel> World<A> {
    /// Asks the workload what comes next.
    pub(super) fn next_act(&mut self) {
        let (load, mut scene) = self.scene();
        match load.next(&mut scene) {
            Some((wait, act)) => {
                self.act = Some(act);
                self.after(wait, Event::Act);
            }
            None => self.said_all = true,
        }
    }

    pub(super) fn client_acts(&mut self) {
        if let Some(act) = self.act.take() {
            // Once trouble is over nothing may hold work up any more.
            let holds_up = self.healed && matches!(act, Act::Queue(_) | Act::Limit(_) | Act::Policy(_));
            if !holds_up {
                self.acts(act);
            }
        }
        self.next_act();
    }

    pub(super) fn acts(&mut self, act: Act) {
        if let Act::Policy(policy) = act {
            return self.set_policy(policy);
        }
        match &act {
            Act::Submit(jobs, _) => {
                self.figures.submitted += jobs.len() as u64;
                for job in jobs {
                    let name = self.trace.name(job.id);
                    self.tell(format_args!(
                        "client: submits j{name} of {}, queue {}, level {}, {} parents",
                        job.tenant,
                        job.spec.queue(),
                        job.spec.priority().level(),
                        job.parents.len()
                    ));
                }
            }
            Act::Schedule(job) => self.watch.scheduled(job),
            Act::Queue(_)
            | Act::Limit(_)
            | Act::NoLimit(_)
            | Act::Cancel(_)
            | Act::Redrive(_)
            | Act::Policy(_) => {}
        }
        let submitted = match &act {
            Act::Submit(jobs, _) => jobs.clone(),
            _ => Vec::new(),
        };
        self.acting += 1;
        let door = Arc::clone(&self.door);
        let acts = async move {
            while let Err(error) = perform(&door, &act).await {
                if !error.is_retryable() {
                    break;
                }
                door.pause(AGAIN).await;
            }
            Done::Acted
        };
        self.spawn(Of::Client, Box::pin(acts));
        self.claims_along(&submitted);
    }
}

async fn perform(door: &Arc<Door>, act: &Act) -> Result<()> {
    match act.clone() {
        Act::Submit(jobs, options) => door.submit(jobs, options).await.map(drop),
        Act::Cancel(jobs) => door.request_cancel(&Scope::All, jobs).await.map(drop),
        Act::Redrive(jobs) => door.redrive(&Scope::All, jobs).await.map(drop),
        Act::Queue(policy) => door.set_queue(policy).await,
        Act::Limit(limit) => door.set_limit(limit).await,
        // Set already: it is no call of the store.
        Act::Policy(_) => Ok(()),
        Act::NoLimit(of) => door.remove_limit(&of).await.map(drop),
        Act::Schedule(job) => {
            let store = Arc::<Door>::clone(door) as Arc<dyn Store>;
            Schedules::new(store, Codecs::new(), Bell::default(), None).set(job).await
        }
    }
}
