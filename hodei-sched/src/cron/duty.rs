//! The duty of firing: led by one node at a time, by the clock of the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use hodei_core::store::{Fired, Round, Schedule, Scope, Term};
use hodei_core::{Name, Result, Tenant, Timestamp};
use tokio::sync::{Notify, watch};

use super::plan::plan;
use super::rule::Kept;
use super::times::Times;
use crate::driver::Shared;
use crate::maintain::{Lead, in_a_living_name};

/// The duty of firing schedules.
const DUTY: &str = "cron";
/// How many schedules fire at once: so many commits share a sync.
const TOGETHER: usize = 64;

/// Rings when a schedule was changed through this node.
pub(crate) type Bell = Arc<Notify>;

/// Fires what is due until the node ends. What fails is tried again after the next beat.
pub(crate) async fn run(
    dispatchers: Vec<Arc<Shared>>,
    mut beats: watch::Receiver<Lead>,
    bell: Bell,
    mut ends: watch::Receiver<()>,
) {
    let mut duty = Duty::of(dispatchers);
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = bell.notified() => {}
            _ = ends.changed() => return,
            beaten = beats.changed() => {
                if beaten.is_err() {
                    return;
                }
                if duty.term.is_none() && !beats.borrow_and_update().scheduled {
                    continue;
                }
            }
        }
        wait = duty.round().await.unwrap_or(Duration::MAX);
    }
}

/// A schedule as this node has read it.
#[derive(Debug)]
struct Read {
    text: Arc<str>,
    /// Nothing where the rule is not understood; the list of schedules says why.
    rule: Option<(Kept, Times)>,
    /// When this node saw it first: a bare expression fires nothing that was before.
    seen: Timestamp,
}

/// The duty, as one node has it. Waits for nothing but the store, so that any loop can drive it.
#[derive(Debug)]
pub(crate) struct Duty {
    /// The dispatchers of the node, at least one.
    dispatchers: Vec<Arc<Shared>>,
    /// What the node has only once is with the first of them.
    shared: Arc<Shared>,
    term: Option<Term>,
    known: HashMap<(Tenant, Name), Read>,
}

/// What is due now, under which term, and after how long to look again.
struct Due {
    fires: Vec<(Schedule, Vec<Timestamp>)>,
    term: Option<Term>,
    wait: Duration,
}

impl Due {
    const NEVER: Self = Self { fires: Vec::new(), term: None, wait: Duration::MAX };
}

impl Duty {
    pub(crate) fn of(dispatchers: Vec<Arc<Shared>>) -> Self {
        let shared = Arc::clone(&dispatchers[0]);
        Self { dispatchers, shared, term: None, known: HashMap::new() }
    }

    /// The dispatcher in whose name the node leads: the first one that has not died, as in its other duty.
    fn leader(&self) -> &Shared {
        let living = self.dispatchers.iter().find(|shared| !shared.died.load(Ordering::Acquire));
        living.unwrap_or(&self.shared)
    }

    /// Has the dispatcher in whose name the node leads live for that.
    fn show(&self) {
        let (leader, leads) = (self.leader(), self.term.is_some());
        for shared in &self.dispatchers {
            // Whoever goes on to lead is never seen not to.
            shared.leads.store(leads && std::ptr::eq(&**shared, leader), Ordering::Release);
        }
    }

    /// Fires what is due, if this node leads, and says after how long to look again.
    async fn round(&mut self) -> Result<Duration> {
        let Due { fires, term, wait } = self.look().await?;
        let Some(term) = term else { return Ok(wait) };
        let fires = fires.into_iter().map(|(row, times)| fire(&self.shared, &term, row, times));
        let fires: Vec<_> = stream::iter(fires).buffer_unordered(TOGETHER).collect().await;
        for fired in fires {
            if !fired? {
                self.term = None;
                return Ok(Duration::ZERO);
            }
        }
        Ok(wait)
    }

    /// As the node's own loop does, one schedule after the other.
    #[cfg(feature = "sim")]
    pub(crate) async fn round_in_turn(&mut self) -> Result<Duration> {
        let Due { fires, term, wait } = self.look().await?;
        let Some(term) = term else { return Ok(wait) };
        for (row, times) in fires {
            if !fire(&self.shared, &term, row, times).await? {
                self.term = None;
                return Ok(Duration::ZERO);
            }
        }
        Ok(wait)
    }

    /// Looks what is due, if this node leads.
    async fn look(&mut self) -> Result<Due> {
        let led = self.is_led_by_another().await;
        self.show();
        if led? {
            return Ok(Due::NEVER);
        }
        let rows = self.shared.store.schedules(&Scope::All).await?;
        if rows.is_empty() {
            // Nobody needs a leader, and a term costs a write each time that it is kept.
            (self.known, self.term) = (HashMap::new(), None);
            self.show();
            return Ok(Due::NEVER);
        }
        let led = self.lead().await;
        self.show();
        let Some(term) = led? else { return Ok(Due::NEVER) };
        let now = self.shared.store.now().await?;
        self.read(&rows, now);
        let mut wait = Duration::MAX;
        let mut fires = Vec::new();
        for row in rows {
            let plan = self.plan(&row, now);
            if let Some(next) = plan.next {
                wait = wait.min(next.saturating_since(now));
            }
            if !plan.fire.is_empty() {
                fires.push((row, plan.fire));
            }
        }
        Ok(Due { fires, term: Some(term), wait })
    }

    /// Keeps the term where there is one; says whether somebody else is known to lead.
    async fn is_led_by_another(&mut self) -> Result<bool> {
        if let Some(term) = self.term.take() {
            let living = self.dispatchers.iter().filter(|shared| !shared.died.load(Ordering::Acquire));
            let living: Vec<_> = living.cloned().collect();
            self.term = in_a_living_name(&*self.shared.store, &living, term).await;
        }
        let (duty, ttl) = (Name::literal(DUTY), self.shared.ttl);
        let round = Round { owners: Vec::new(), ttl, duty, term: self.term.clone() };
        let rounded = self.shared.store.round(round).await?;
        self.term = rounded.term;
        Ok(self.term.is_none() && rounded.led)
    }

    /// Returns the term that was kept, or takes the duty when nobody leads.
    async fn lead(&mut self) -> Result<Option<Term>> {
        if self.term.is_none() {
            let lease = self.leader().lease.borrow().clone();
            self.term = self.shared.store.take_term(&Name::literal(DUTY), &lease, self.shared.ttl).await?;
        }
        Ok(self.term.clone())
    }

    /// Reads the rules that are new or have changed, and forgets schedules that are gone.
    fn read(&mut self, rows: &[Schedule], now: Timestamp) {
        let mut before = std::mem::take(&mut self.known);
        for row in rows {
            let key = (row.tenant.clone(), row.name.clone());
            let read = match before.remove(&key) {
                Some(read) if read.text == row.rule => read,
                earlier => {
                    let rule = Kept::read(&row.rule).and_then(|kept| Ok((kept.rule.compile()?, kept)));
                    let rule = rule.ok().map(|(times, kept)| (kept, times));
                    Read {
                        text: Arc::clone(&row.rule),
                        rule,
                        seen: earlier.map_or(now, |earlier| earlier.seen),
                    }
                }
            };
            self.known.insert(key, read);
        }
    }

    fn plan(&self, row: &Schedule, now: Timestamp) -> super::plan::Plan {
        let read = self.known.get(&(row.tenant.clone(), row.name.clone()));
        let Some(Read { rule: Some((kept, times)), seen, .. }) = read else {
            return super::plan::Plan::default();
        };
        if kept.paused {
            return super::plan::Plan::default();
        }
        let after = match (row.last_fired, kept.since) {
            (Some(fired), Some(since)) => fired.max(since),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => *seen,
        };
        plan(&kept.rule, times, row.name.as_str(), after, now)
    }
}

/// Fires a schedule for times in their order; `false` when the term is over.
async fn fire(shared: &Shared, term: &Term, row: Schedule, times: Vec<Timestamp>) -> Result<bool> {
    for at in times {
        match shared.store.fire(term, &row.tenant, &row.name, at).await? {
            Fired::New(_) | Fired::Already => {}
            // Somebody removed it meanwhile.
            Fired::NotFound => break,
            Fired::TermLost => return Ok(false),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use hodei_core::job::JobSpec;
    use hodei_core::store::{Coordination, MemoryStore, Policies};

    use super::*;
    use crate::cron::CronRule;
    use crate::maintain::tests::dispatcher;

    /// Has a schedule in the store that fires nothing for a while.
    async fn schedule(store: &MemoryStore) -> (Tenant, Name) {
        let kept = Kept { rule: CronRule::new("0 0 1 1 *"), paused: true, since: None };
        let schedule = Schedule {
            tenant: Tenant::default(),
            name: Name::literal("yearly"),
            rule: kept.text().into(),
            spec: Arc::new(JobSpec::command(["true"]).build().expect("a valid spec")),
            last_fired: None,
        };
        store.set_schedule(schedule.clone()).await.expect("it is set");
        (schedule.tenant, schedule.name)
    }

    #[tokio::test]
    async fn whoever_leads_is_seen_to_for_as_long_as_there_are_schedules() {
        let store = MemoryStore::new();
        let both = vec![dispatcher(&store, "a").await, dispatcher(&store, "a.1").await];
        let leads = || -> Vec<bool> { both.iter().map(|of| of.leads.load(Ordering::Acquire)).collect() };
        let mut duty = Duty::of(both.clone());
        duty.round().await.expect("the store answers");
        assert_eq!(leads(), [false, false], "there is nothing to lead");
        let (tenant, name) = schedule(&store).await;
        duty.round().await.expect("the store answers");
        assert_eq!(leads(), [true, false]);
        both[0].died.store(true, Ordering::Release);
        duty.round().await.expect("the store answers");
        assert_eq!(leads(), [false, true], "the next one leads in its place");
        store.remove_schedule(&tenant, &name).await.expect("it is removed");
        duty.round().await.expect("the store answers");
        assert_eq!(leads(), [false, false]);
        // Somebody else takes it.
        let other = dispatcher(&store, "b").await;
        let lease = other.lease.borrow().clone();
        store.retire(&both[0].lease.borrow().clone()).await.expect("it retires");
        store.retire(&both[1].lease.borrow().clone()).await.expect("it retires");
        let term = store.take_term(&Name::literal(DUTY), &lease, other.ttl).await.expect("the store answers");
        assert!(term.is_some());
        schedule(&store).await;
        duty.round().await.expect("the store answers");
        assert_eq!(leads(), [false, false]);
    }
}
