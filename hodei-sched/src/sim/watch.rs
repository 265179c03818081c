//! What the simulator sees by itself, beside what the checker of histories finds.

use std::collections::BTreeMap;
use std::time::Duration;

use hodei_core::job::{Cause, Lease, State};
use hodei_core::map::{JobMap, JobSet};
use hodei_core::store::{Applied, Change, Consistency, Fired, JobStore, Scope};
use hodei_core::testkit::history::{Call, Entry, Reply, Step};
use hodei_core::{JobId, Name, Tenant, Timestamp};

use super::agent::AgentModel;
use super::desk::Desk;
use super::door::at_once;
use super::fires::Schedules;
use super::world::World;

/// How many findings are kept.
const FINDINGS_MAX: usize = 20;
/// How often a node may ask for lanes in a second.
const ASKS_MAX: u32 = 2_000;
/// How long after the faults nothing of them is left.
const CALM: Duration = Duration::from_secs(20);
/// How long a job waits at most that nothing stands in the way of; it may be delayed by five seconds.
const PROMPT: Duration = Duration::from_secs(30);

/// What was found, and what it takes to find it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) findings: Vec<String>,
    /// The call that the next reply answers.
    call: Option<Call>,
    /// Who holds each leased job.
    holders: JobMap<Lease>,
    /// How often each dispatcher has asked for lanes in a second of virtual time.
    asks: BTreeMap<(usize, usize), (i64, u32)>,
    pub(super) schedules: Schedules,
    /// Which node makes the call, and in which of its lives; nobody where it comes late or from a client.
    pub(super) caller: Option<(usize, u64)>,
    /// Who has taken each term of a duty.
    takers: BTreeMap<(Name, u64), (usize, u64)>,
    /// How many jobs of each tenant are open.
    open: BTreeMap<Tenant, u64>,
    /// The jobs whose end somebody has asked for.
    unwanted: JobSet,
    /// A job that came in calm while nothing else was open, and when.
    lonely: Option<(JobId, Timestamp)>,
}

impl Watch {
    /// Notes what must not be.
    pub(super) fn find(&mut self, text: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(text);
        }
    }

    /// Notes that a node asks for lanes: one that asks without end finds nothing by it.
    pub(super) fn asked(&mut self, Desk { node, seat, .. }: Desk, now: Timestamp) {
        let second = now.as_micros() / 1_000_000;
        let asks = self.asks.entry((node, seat)).or_default();
        *asks = if asks.0 == second { (second, asks.1 + 1) } else { (second, 1) };
        if asks.1 == ASKS_MAX {
            self.find(format!("node-{node} asked the store for lanes {ASKS_MAX} times within a second"));
        }
    }

    /// A term that a node acts under is one that it has taken itself.
    fn acts_under(&mut self, duty: &Name, term: u64) {
        let taker = self.takers.get(&(duty.clone(), term));
        if let Some(((caller, _), taker)) = self.caller.zip(taker).filter(|(caller, taker)| caller != *taker)
        {
            let text =
                format!("I6: node-{caller} acts under term {term} of {duty}, which node-{} took", taker.0);
            self.find(text);
        }
    }

    /// What a run spawned is there with its end, or not at all.
    fn spawned(&mut self, steps: &[Step], applied: &[Applied], changes: &[Change]) {
        for (step, _) in steps.iter().zip(applied).filter(|(_, applied)| **applied == Applied::Done) {
            let ended = changes.iter().any(|change| change.job == step.job && change.to.is_terminal());
            for spawned in step.spawn.iter().filter(|_| ended) {
                let there = changes.iter().any(|change| change.job == spawned.job && change.from.is_none());
                if !there {
                    self.find(format!(
                        "I4: the end of {} came without {}, which it spawned",
                        step.job, spawned.job
                    ));
                }
            }
        }
    }
}

impl<A: AgentModel> World<A> {
    /// Takes in an entry of the history.
    pub(super) fn noted(&mut self, entry: &Entry) {
        match entry {
            Entry::Called { what, .. } => {
                match what {
                    Call::RequestCancel { jobs, .. } => self.watch.unwanted.extend(jobs),
                    Call::Reap { duty, term, .. }
                    | Call::Prune { duty, term, .. }
                    | Call::Fire { duty, term, .. } => self.watch.acts_under(duty, *term),
                    _ => {}
                }
                self.watch.call = Some(what.clone());
            }
            Entry::Returned { reply, .. } => {
                let call = self.watch.call.take();
                self.answered_by_store(call.as_ref(), reply);
            }
            _ => {}
        }
    }

    fn answered_by_store(&mut self, call: Option<&Call>, reply: &Reply) {
        let reaps = matches!(call, Some(Call::Reap { .. }));
        for change in reply.committed() {
            if reaps && change.from.is_some_and(State::is_leased) {
                self.was_dead(change.job);
            }
            self.moved(change);
        }
        if let Some(Call::Submit { .. }) = call {
            self.has_room(reply);
        }
        match (call, reply) {
            (Some(Call::TakeTerm { duty, .. }), Reply::Term { number: Some(number) }) => {
                if let Some(caller) = self.watch.caller {
                    self.watch.takers.insert((duty.clone(), *number), caller);
                }
            }
            (
                Some(Call::Exchange { owner, steps, .. }),
                Reply::Exchanged { applied, claimed, owner_lost, changes, .. },
            ) => {
                self.began(steps, applied);
                for (seen, _) in claimed {
                    self.watch.holders.insert(seen.job, owner.clone());
                }
                if *owner_lost {
                    self.kept_promise(owner);
                }
                if steps.iter().any(|step| !step.spawn.is_empty()) {
                    self.watch.spawned(steps, applied, changes);
                }
            }
            (Some(Call::SetSchedule { tenant, schedule }), _) => {
                self.watch.was_set(tenant, schedule, self.now)
            }
            (Some(Call::Fire { tenant, schedule, at, .. }), Reply::Fired { fired: Fired::New(_) }) => {
                self.watch.fired(tenant, schedule, *at, self.now);
                self.open += 1;
                self.figures.submitted += 1;
            }
            _ => {}
        }
    }

    /// The start of what was lent moves its lease.
    fn began(&mut self, steps: &[Step], applied: &[Applied]) {
        if self.options.dispatchers < 2 {
            return;
        }
        let done = steps.iter().zip(applied).filter(|(_, applied)| **applied == Applied::Done);
        let began = done.filter(|(step, _)| step.cause == Cause::Started).map(|(step, _)| step.job);
        let store = self.door.store().inner().inner();
        let found = at_once(store.get_many(&Scope::All, began.collect(), Consistency::Latest));
        for job in found.into_iter().flatten().flatten() {
            self.watch.holders.extend(job.lease.map(|lease| (job.id, lease)));
        }
    }

    /// A job was taken back: whoever held it was dead, then.
    fn was_dead(&mut self, job: JobId) {
        if let Some(holder) = self.watch.holders.get(&job).cloned() {
            self.kept_promise(&holder);
        }
    }

    /// Nobody counts as dead who was told that it lives.
    fn kept_promise(&mut self, owner: &Lease) {
        if let Some(until) = self.door.promised(owner).filter(|until| *until > self.now) {
            let early = until.saturating_since(self.now);
            self.watch.find(format!(
                "I18: {} counts as dead {early:?} before the end that it was promised",
                owner.owner
            ));
        }
    }

    fn moved(&mut self, change: &Change) {
        let name = self.trace.name(change.job);
        let from = change.from.map_or("-", State::name);
        self.tell(format_args!(
            "  j{name} v{} {from} -> {}, {:?}, e{} a{}",
            change.version,
            change.to.name(),
            change.cause,
            change.epoch,
            change.attempt
        ));
        self.figures.transitions += 1;
        self.is_prompt(change);
        match (change.from, change.cause) {
            (None, _) | (_, Cause::Redriven) => {
                self.open += 1;
                *self.watch.open.entry(change.tenant.clone()).or_default() += 1;
            }
            (_, Cause::Preempted) => self.figures.preempted += 1,
            (_, Cause::Cancelled) if !self.watch.unwanted.contains(&change.job) => {
                self.watch.find(format!("I10: j{name} was cancelled, and nobody had asked for that"));
            }
            _ => {}
        }
        if change.to.is_terminal() {
            self.open -= 1;
            self.figures.ended += 1;
            if let Some(open) = self.watch.open.get_mut(&change.tenant) {
                *open = open.saturating_sub(1);
            }
        }
        self.load.committed(change);
    }

    /// No tenant has more open after a submission than it may.
    fn has_room(&mut self, reply: &Reply) {
        let Some(most) = self.options.tenant_max_open else { return };
        for change in reply.committed().iter().filter(|change| change.from.is_none()) {
            let open = self.watch.open.get(&change.tenant).copied().unwrap_or(0);
            if open > most && !change.to.is_terminal() {
                let tenant = &change.tenant;
                self.watch
                    .find(format!("I11: {open} jobs of {tenant} are open after a submission, of {most}"));
            }
        }
    }

    /// Who comes in calm and alone is not kept waiting, whoever rests.
    fn is_prompt(&mut self, change: &Change) {
        let calm = self.healed_at.is_some_and(|at| self.now > at.saturating_add(CALM));
        if calm && self.open == 0 && change.from.is_none() && change.to == State::Pending {
            self.watch.lonely = Some((change.job, self.now));
        } else if let Some((_, since)) = self.watch.lonely.take_if(|(job, _)| *job == change.job) {
            let waited = self.now.saturating_since(since);
            if waited > PROMPT {
                let name = self.trace.name(change.job);
                self.watch.find(format!("I18: j{name} came alone and in calm, and waited {waited:?}"));
            }
        }
    }
}
