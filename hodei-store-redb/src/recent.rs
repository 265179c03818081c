//! What was submitted or claimed lately, so that claiming and settling it soon reads and decodes nothing.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use hodei_core::job::{Fingerprint, JobSpec};
use hodei_core::map::JobMap;
use hodei_core::{JobId, Slot};

use crate::codec::{self, Fixed, Head};
use crate::memory::Step;
use crate::sync::lock;

/// Jobs that were submitted lately as they were born, jobs that are leased as of the last commit, and specs by their
/// fingerprints. Forgotten as a whole when a transaction is given up.
#[derive(Debug)]
pub(crate) struct Recent {
    born: Fifo<Box<Step>>,
    held: Fifo<Box<Step>>,
    /// Each spec in the place that its fingerprint names; another one of that place takes it.
    specs: Vec<Option<Arc<JobSpec>>>,
    spare: Spare,
    /// How often something went away that may come back another.
    departures: u64,
}

/// How many specs are remembered: jobs come by the thousand and are of few specs, or each is of its own.
const SPECS: u16 = 1_024;

impl Recent {
    /// Makes one that keeps so many jobs of each kind.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            born: Fifo::new(most),
            held: Fifo::new(most),
            specs: vec![None; usize::from(SPECS)],
            spare: Spare::default(),
            departures: 0,
        }
    }

    /// Takes a job out that is as it was born.
    pub(crate) fn born(&mut self, id: JobId) -> Option<Box<Step>> {
        self.born.rows.remove(&id)
    }

    /// Takes a leased job out: whoever moves it brings it back with the commit.
    pub(crate) fn held(&mut self, id: JobId) -> Option<Box<Step>> {
        self.held.rows.remove(&id)
    }

    /// Forgets leased jobs that a transaction moves, until it has been committed.
    pub(crate) fn lose(&mut self, jobs: impl Iterator<Item = JobId>) {
        for id in jobs {
            self.held.rows.remove(&id);
        }
    }

    /// Takes over how jobs moved, and the room that a transaction did not need. Puts specs that nobody else has into
    /// `gone`. New jobs are not kept where more are pending than have room here: those that came first go first, and
    /// these would be forgotten before it is their turn.
    #[expect(clippy::vec_box, reason = "a step is large, and goes from list to list")]
    pub(crate) fn apply(
        &mut self,
        steps: Vec<Box<Step>>,
        spare: Spare,
        pending: u64,
        gone: &mut Vec<Arc<JobSpec>>,
    ) {
        let keeps_new = pending <= self.born.most as u64;
        self.spare.0.extend(spare.0);
        for mut step in steps {
            let (id, was_leased) =
                (step.head.job.id, step.was.as_ref().is_some_and(|was| was.lease.is_some()));
            let place = if step.head.job.lease.is_some() {
                step.forget_work();
                &mut self.held
            } else if keeps_new && step.was.is_none() && step.head.is_newborn() && is_small(&step.head) {
                self.know(&step.head.job.spec);
                &mut self.born
            } else {
                // Whatever it is now, it is not as it was born; or another was born under its id.
                self.forget(id, gone);
                // What was leased when this transaction began is here no more, unless it was claimed in it.
                let before = was_leased.then(|| self.held.rows.remove(&id)).flatten();
                before.into_iter().chain([step]).for_each(|over| self.spare.keep(over, gone));
                continue;
            };
            if let Some(over) = place.insert(id, step) {
                self.spare.keep(over, gone);
            }
        }
    }

    /// Returns those of some jobs that are not remembered as they were born, as many as there is room for.
    pub(crate) fn unknown(&self, mut ids: Vec<JobId>) -> Vec<JobId> {
        ids.retain(|id| !self.born.rows.contains_key(id));
        ids.truncate(self.born.most.saturating_sub(self.born.rows.len()));
        ids
    }

    /// Returns how often something went away. Whoever reads jobs in order to bring them looks before it does.
    pub(crate) fn departures(&self) -> u64 {
        self.departures
    }

    /// Remembers stored jobs as they were born, unless something went away since they were read: their ids may be
    /// others' by now.
    pub(crate) fn bring_all(&mut self, heads: Vec<Head>, departures: u64, gone: &mut Vec<Arc<JobSpec>>) {
        if departures == self.departures {
            heads.into_iter().for_each(|head| self.bring(head, gone));
        }
    }

    /// Remembers a stored job as it was born.
    fn bring(&mut self, head: Head, gone: &mut Vec<Arc<JobSpec>>) {
        if !is_small(&head) {
            return;
        }
        self.know(&head.job.spec);
        let step = self.spare.boxed(Step { was: None, head });
        if let Some(over) = self.born.insert(step.head.job.id, step) {
            self.spare.keep(over, gone);
        }
    }

    /// Forgets jobs that went away.
    pub(crate) fn depart(&mut self, jobs: &[JobId], gone: &mut Vec<Arc<JobSpec>>) {
        self.departures += u64::from(!jobs.is_empty());
        jobs.iter().for_each(|id| self.forget(*id, gone));
    }

    /// Forgets how a job was born.
    fn forget(&mut self, id: JobId, gone: &mut Vec<Arc<JobSpec>>) {
        if !self.born.rows.is_empty()
            && let Some(step) = self.born.rows.remove(&id)
        {
            self.spare.keep(step, gone);
        }
    }

    /// Forgets the jobs of a slot.
    pub(crate) fn leave(&mut self, slot: Slot) {
        self.departures += 1;
        self.born.rows.retain(|id, _| id.slot() != slot);
        self.held.rows.retain(|id, _| id.slot() != slot);
    }

    /// Lends the room of steps that nobody needs any more.
    pub(crate) fn lend(&mut self) -> Spare {
        std::mem::take(&mut self.spare)
    }

    /// Returns the spec of a fingerprint.
    pub(crate) fn spec(&self, fingerprint: Fingerprint) -> Option<Arc<JobSpec>> {
        self.specs[place(fingerprint, SPECS)]
            .as_ref()
            .filter(|spec| spec.fingerprint() == fingerprint)
            .map(Arc::clone)
    }

    /// Keeps a spec for a while.
    pub(crate) fn know(&mut self, spec: &Arc<JobSpec>) {
        if codec::work_bytes(spec) > KNOWN_SPEC_MAX {
            return;
        }
        let known = &mut self.specs[place(spec.fingerprint(), SPECS)];
        if known.as_ref().is_none_or(|known| known.fingerprint() != spec.fingerprint()) {
            *known = Some(Arc::clone(spec));
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.departures += 1;
        self.born.clear();
        self.held.clear();
        self.specs.fill(None);
    }
}

/// A spec that is remembered has at most about so many bytes in its row: beyond, few of them would take much memory.
const KNOWN_SPEC_MAX: usize = 4 << 10;

/// Says whether the spec of a new job is small enough to be remembered.
fn is_small(head: &Head) -> bool {
    codec::work_bytes(&head.job.spec) <= KNOWN_SPEC_MAX
}

/// How many steps are kept for their room.
const SPARE_MAX: usize = 8_192;

/// The room of steps that nobody needs any more: thousands come and go with each commit, and what they take of the
/// allocator is a good part of what a transition costs.
#[derive(Clone, Debug, Default)]
#[expect(clippy::vec_box, reason = "a step is large, and goes from list to list")]
pub(crate) struct Spare(Vec<Box<Step>>);

impl Spare {
    /// Boxes a step.
    pub(crate) fn boxed(&mut self, step: Step) -> Box<Step> {
        match self.0.pop() {
            Some(mut room) => {
                *room = step;
                room
            }
            None => Box::new(step),
        }
    }

    /// Keeps the room of a step, and nothing that is large.
    fn keep(&mut self, mut step: Box<Step>, gone: &mut Vec<Arc<JobSpec>>) {
        let Fixed { spec, .. } = step.head.take_fixed();
        if Arc::strong_count(&spec) == 1 {
            gone.push(spec);
        }
        if self.0.len() < SPARE_MAX {
            step.head.job.settled = None;
            self.0.push(step);
        }
    }
}

/// How many specs that were read are remembered.
const READ_SPECS: u16 = 4_096;
/// The row of a spec that is remembered has at most so many bytes: all of them together take some 20 MiB at most.
const READ_SPEC_MAX: usize = 4 << 10;

/// Specs that readers came upon lately, by their fingerprints: whoever reads jobs of few specs, or the same jobs again,
/// decodes each spec once. Each has the place that its fingerprint names; another one of that place takes it.
#[derive(Debug)]
pub(crate) struct Specs(Box<[Mutex<Option<Arc<JobSpec>>>]>);

impl Default for Specs {
    fn default() -> Self {
        Self((0..READ_SPECS).map(|_| Mutex::default()).collect())
    }
}

impl Specs {
    /// Returns the spec of a fingerprint.
    pub(crate) fn get(&self, fingerprint: Fingerprint) -> Option<Arc<JobSpec>> {
        let known = lock(&self.0[place(fingerprint, READ_SPECS)]);
        known.as_ref().filter(|spec| spec.fingerprint() == fingerprint).map(Arc::clone)
    }

    /// Keeps a spec whose row has so many bytes for a while, unless it is large.
    pub(crate) fn keep(&self, spec: &Arc<JobSpec>, row: usize) {
        if row <= READ_SPEC_MAX {
            let before = lock(&self.0[place(spec.fingerprint(), READ_SPECS)]).replace(Arc::clone(spec));
            // Outside of the lock.
            drop(before);
        }
    }
}

/// For how many items things wait at most to be cleared away.
const GONE_MAX: usize = 16_384;

/// What nobody needs any more, with how many items it is.
type Leftover = (usize, Box<dyn Send>);

/// What commits have left over: specs, and the jobs of calls that were answered. A job is a dozen pieces of memory, and
/// the writer is who everybody waits for: callers clear away while they wait for their commit, each about as much as it
/// brings, and the writer does when nobody comes.
#[derive(Default)]
pub(crate) struct Gone(Mutex<(usize, Vec<Leftover>)>);

impl fmt::Debug for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gone").finish_non_exhaustive()
    }
}

impl Gone {
    /// Leaves things to whoever comes next; those for which there is no room are cleared away at once.
    pub(crate) fn leave(&self, things: impl Iterator<Item = Leftover>) {
        let mut rest = Vec::new();
        {
            let mut left = lock(&self.0);
            for thing in things {
                if left.0.saturating_add(thing.0) <= GONE_MAX {
                    left.0 += thing.0;
                    left.1.push(thing);
                } else {
                    rest.push(thing);
                }
            }
        }
        // Outside of the lock.
        drop(rest);
    }

    /// Clears away what a caller of so many items should: twice as many, and a last one that may be large.
    pub(crate) fn clear_away(&self, items: usize) {
        let (mut cleared, wanted) = (0, items.saturating_mul(2));
        while cleared < wanted {
            let thing = {
                let mut left = lock(&self.0);
                let thing = left.1.pop();
                left.0 -= thing.as_ref().map_or(0, |(items, _)| *items);
                thing
            };
            let Some((items, thing)) = thing else { return };
            cleared += items.max(1);
            drop(thing);
        }
    }
}

/// Where the spec of a fingerprint is kept.
fn place(fingerprint: Fingerprint, places: u16) -> usize {
    let [low, high, ..] = *fingerprint.as_bytes();
    usize::from(u16::from_le_bytes([low, high]) % places)
}

/// A bounded map, first in first out.
#[derive(Debug)]
struct Fifo<V> {
    rows: JobMap<V>,
    order: VecDeque<JobId>,
    most: usize,
}

impl<V> Fifo<V> {
    fn new(most: usize) -> Self {
        Self { rows: JobMap::default(), order: VecDeque::new(), most }
    }

    /// Puts a value in, and returns one that has to go.
    fn insert(&mut self, key: JobId, value: V) -> Option<V> {
        if self.most == 0 {
            return Some(value);
        }
        let oldest = if self.order.len() < self.most { None } else { self.order.pop_front() };
        let oldest = oldest.and_then(|oldest| self.rows.remove(&oldest));
        self.order.push_back(key);
        self.rows.insert(key, value).or(oldest)
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use hodei_core::job::{JobSpec, NewJob, rules};
    use hodei_core::{Tenant, Timestamp};

    use super::*;

    #[test]
    fn what_was_read_before_something_went_away_is_not_brought() {
        let new = NewJob::new(JobSpec::command(["true"]).build().expect("a valid spec"));
        let (id, other) = (new.id, JobId::from_parts(1, Tenant::default().slot(), 1));
        let head = Head::of(rules::admit(new, Timestamp::EPOCH).0, 1);
        let departures: [fn(&mut Recent, JobId); 3] = [
            |recent, other| recent.depart(&[other], &mut Vec::new()),
            |recent, other| recent.leave(other.slot()),
            |recent, _| recent.clear(),
        ];
        for depart in departures {
            let mut recent = Recent::new(8);
            let before = recent.departures();
            depart(&mut recent, other);
            recent.bring_all(vec![head.clone()], before, &mut Vec::new());
            assert!(recent.born(id).is_none());
            recent.depart(&[], &mut Vec::new());
            let now = recent.departures();
            recent.bring_all(vec![head.clone()], now, &mut Vec::new());
            assert!(recent.born(id).is_some());
        }
    }
}
