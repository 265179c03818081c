//! What the simulator sees by itself, beside what the checker of histories finds.

use std::collections::BTreeMap;

use hodei_core::job::{Cause, Lease, State};
use hodei_core::map::JobMap;
use hodei_core::store::{Applied, Change, Fired};
use hodei_core::testkit::history::{Call, Entry, Reply, Step};
use hodei_core::{JobId, Timestamp};

use super::agent::AgentModel;
use super::fires::Schedules;
use super::world::World;

/// How many findings are kept.
const FINDINGS_MAX: usize = 20;
/// How often a node may ask for lanes in a second.
const ASKS_MAX: u32 = 2_000;

/// What was found, and what it takes to find it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) findings: Vec<String>,
    /// The call that the next reply answers.
    call: Option<Call>,
    /// Who holds each leased job.
    holders: JobMap<Lease>,
    /// How often each node has asked for lanes in a second of virtual time.
    asks: BTreeMap<usize, (i64, u32)>,
    pub(super) schedules: Schedules,
}

impl Watch {
    /// Notes what must not be.
    pub(super) fn find(&mut self, text: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(text);
        }
    }

    /// Notes that a node asks for lanes: one that asks without end finds nothing by it.
    pub(super) fn asked(&mut self, node: usize, now: Timestamp) {
        let second = now.as_micros() / 1_000_000;
        let asks = self.asks.entry(node).or_default();
        *asks = if asks.0 == second { (second, asks.1 + 1) } else { (second, 1) };
        if asks.1 == ASKS_MAX {
            self.find(format!("node-{node} asked the store for lanes {ASKS_MAX} times within a second"));
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
            Entry::Called { what, .. } => self.watch.call = Some(what.clone()),
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
        match (call, reply) {
            (
                Some(Call::Exchange { owner, steps, .. }),
                Reply::Exchanged { applied, claimed, owner_lost, changes, .. },
            ) => {
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
        match (change.from, change.cause) {
            (None, _) | (_, Cause::Redriven) => self.open += 1,
            _ => {}
        }
        if change.to.is_terminal() {
            self.open -= 1;
            self.figures.ended += 1;
        }
        self.load.committed(change);
    }
}
