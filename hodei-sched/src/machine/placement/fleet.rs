//! The workers, what is free on them, and which of them jobs of a class could go to.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hodei_core::Timestamp;
use hodei_core::gateway::Offer;
use hodei_core::job::{Priority, Request, RequestClass, Resources};

use super::amounts::{Amounts, Names, Need};
use super::bits::Bits;
use super::candidates::{Asked, Candidates};
use super::class::Known;
use super::group::{Company, Groups, Place};
use super::levels::Levels;
use super::rule::Rule;
use super::shapes::Shapes;
use super::strays::Stray;
use crate::balance::Balancer;
use crate::queue::ClassId;

/// A worker of a [`Fleet`], until it leaves; then another one may get its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub(crate) u32);

impl WorkerId {
    /// Its number: those of all workers are small.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Free slots are told apart up to this number; those that have more count as alike.
pub(super) const LOADS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) free: Amounts,
    pub(super) free_slots: u32,
    pub(super) shape: u32,
    /// A number that stays the same when the worker comes again.
    pub(super) key: u64,
    slots: u32,
    pub(super) draining: bool,
    /// Whether something runs here for which nothing could be set aside: then nothing more is placed here.
    pub(super) crowded: bool,
    /// What runs here that was not placed here.
    pub(super) strays: Vec<Stray>,
    /// The classes for which there is no room here before something is free.
    pub(super) shut_out: Vec<u32>,
    /// How many jobs it has under each rule.
    pub(super) apart: Vec<(u32, u32)>,
    /// How many it has of each group, and how many that shun it.
    pub(super) company: Vec<Company>,
}

impl Worker {
    /// Whether it has a free slot, and runs no more than there is room for.
    pub(super) fn has_slot(&self) -> bool {
        self.free_slots > 0 && !self.crowded
    }

    /// Notes that a job under a rule comes, whether or not that keeps its jobs apart now: it may do so later.
    pub(super) fn comes_under(&mut self, rule: u32) {
        if rule == 0 {
            return;
        }
        match self.apart.iter_mut().find(|(of, _)| *of == rule) {
            Some((_, n)) => *n += 1,
            None => self.apart.push((rule, 1)),
        }
    }

    /// Notes that one of those goes.
    pub(super) fn goes_under(&mut self, rule: u32) {
        if let Some(at) = self.apart.iter().position(|(of, _)| *of == rule) {
            self.apart[at].1 -= 1;
            if self.apart[at].1 == 0 {
                self.apart.swap_remove(at);
            }
        }
    }
}

/// What jobs ask for, and where they could go.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) request: Arc<Request>,
    pub(super) need: Need,
    pub(super) rule: u32,
    /// What its jobs say of where they may run, if anything.
    pub(super) place: Option<Box<Place>>,
    /// The workers that could run such jobs were they idle.
    pub(super) able: Bits,
    /// Those of them on which there may be room now.
    pub(super) room: Bits,
    /// Those of them that come first.
    pub(super) preferred: Bits,
    /// How many jobs of it wait or run.
    pub(super) uses: u32,
    /// On how many workers at once such a job runs.
    pub(super) workers: u32,
}

/// The worker on which the most urgent job that found no room gets the next room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) class: ClassId,
    pub(super) level: Priority,
    pub(super) worker: WorkerId,
}

/// The workers of a dispatcher.
///
/// Room is set aside in the very call that decides, so nothing is ever promised twice. Which workers a class could go
/// to is decided once for the class and each shape of worker, and kept; where there was no room is not looked at again
/// before something becomes free there.
#[derive(Debug, Default)]
pub struct Fleet {
    pub(super) workers: Vec<Worker>,
    free: Vec<u32>,
    pub(super) names: Names,
    pub(super) shapes: Shapes,
    pub(super) classes: Vec<Option<Class>>,
    pub(super) free_classes: Vec<u32>,
    /// By what is asked for, and the rule. Requests that differ only in whom they have their turns with are of one class.
    pub(super) by_number: HashMap<(RequestClass, u32), Known>,
    pub(super) groups: Groups,
    /// Whether a job of a group has come to a worker that had none of it.
    joined_group: bool,
    /// The workers that are crowded no more, since this was asked last.
    pub(super) relieved: Vec<WorkerId>,
    pub(super) rules: Vec<Arc<Rule>>,
    /// Workers that take work and have a free slot.
    pub(super) open: Bits,
    /// The same, by how many slots are free.
    pub(super) by_free: Vec<Bits>,
    open_slots: u64,
    /// How many jobs all workers have, and how many workers there are.
    pub(super) placed: u64,
    joined: u32,
    pub(super) levels: Levels,
    pub(super) hold: Option<Hold>,
    /// The other workers that are held for the same job, of a gang.
    pub(super) held_too: Bits,
    /// When the job for which they are held begins at the latest, and when the one that is placed next ends at the latest.
    pub(super) starts: Option<Timestamp>,
    pub(super) ends: Option<Timestamp>,
    /// The workers that were chosen last for one job, beside the first one.
    pub(super) gang: Vec<WorkerId>,
    /// Rises whenever a worker comes or goes.
    pub(super) generation: u64,
}

impl Fleet {
    /// Makes a fleet without workers.
    #[must_use]
    pub fn new() -> Self {
        let by_free = vec![Bits::default(); LOADS];
        Self { by_free, rules: vec![Arc::new(Rule::anywhere())], ..Self::default() }
    }

    /// Adds a worker; `key` stays the same when the worker comes again, and tells it from the others.
    pub fn join(&mut self, offer: &Offer, key: u64) -> WorkerId {
        if self.names.learn(&offer.capacity) {
            self.learn();
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.workers.push(Worker::default());
            u32::try_from(self.workers.len() - 1).unwrap_or(u32::MAX)
        });
        let shape = self.shapes.join(at, offer, &self.names);
        self.workers[at as usize] = Worker {
            free: self.shapes.capacity(shape).clone(),
            free_slots: 0,
            shape,
            key,
            slots: offer.slots,
            draining: false,
            crowded: false,
            strays: Vec::new(),
            shut_out: Vec::new(),
            apart: Vec::new(),
            company: Vec::new(),
        };
        for number in self.numbers(|_| true).collect::<Vec<u32>>() {
            self.decide_for(at, number);
        }
        self.slots_changed(at, |worker| worker.free_slots = worker.slots);
        self.joined += 1;
        self.generation += 1;
        WorkerId(at)
    }

    /// Takes a worker out, with whatever was set aside on it.
    pub fn leave(&mut self, worker: WorkerId) {
        self.strays_leave(worker);
        self.placed -= u64::from(self.running(worker));
        self.joined -= 1;
        self.slots_changed(worker.0, |left| (left.free_slots, left.slots) = (0, 0));
        for class in self.classes.iter_mut().flatten() {
            class.able.clear(worker.0);
            class.room.clear(worker.0);
            class.preferred.clear(worker.0);
        }
        let left = &mut self.workers[worker.0 as usize];
        self.shapes.leave(worker.0, left.shape);
        self.groups.leave(worker.0, &mut left.company);
        self.levels.leaves(worker.0);
        if self.is_held(worker) {
            self.hold = None;
        }
        self.free.push(worker.0);
        self.generation += 1;
    }

    /// Gives a worker no more work, or gives it work again.
    pub fn set_draining(&mut self, worker: WorkerId, draining: bool) {
        self.slots_changed(worker.0, |worker| worker.draining = draining);
        for class in self.numbers(|_| true).collect::<Vec<u32>>() {
            self.decide_for(worker.0, class);
        }
        self.workers[worker.0 as usize].shut_out.clear();
        if self.is_held(worker) {
            self.hold = None;
        }
        self.generation += 1;
    }

    /// Chooses a worker for a job and sets room aside there; nothing when there is none. For a gang it does so with all of
    /// its workers or with none: the other ones are [`Fleet::others`]. A balancer that panics, or names a worker without
    /// room, has chosen nothing.
    pub fn place(&mut self, asked: Asked, balancer: &mut dyn Balancer) -> Option<WorkerId> {
        let class = self.classes[asked.class.0 as usize].as_ref()?;
        if class.room.is_empty() || self.open.is_empty() {
            return None;
        }
        self.gang.clear();
        let chosen = if class.workers > 1 {
            self.place_gang(asked, balancer)?
        } else {
            let chosen = self.choose(asked, balancer)?;
            self.reserve(chosen, asked.class);
            chosen
        };
        if self.hold.is_some_and(|hold| hold.class == asked.class) {
            self.hold = None;
        }
        Some(chosen)
    }

    /// Has a balancer choose among the workers that come first, or else among all.
    pub(super) fn choose(&mut self, asked: Asked, balancer: &mut dyn Balancer) -> Option<WorkerId> {
        let class = self.classes[asked.class.0 as usize].as_ref()?;
        let (preferred, near) =
            (!class.preferred.is_empty(), class.place().is_some_and(|p| !p.near.is_empty()));
        // What a balancer leaves behind when it panics is its own affair; of ours it changes nothing but notes of who has no
        // room.
        let chosen = catch_unwind(AssertUnwindSafe(|| {
            [(true, true), (false, true), (true, false), (false, false)]
                .into_iter()
                .filter(|first| (preferred || !first.0) && (near || !first.1))
                .find_map(|first| balancer.choose(&mut Candidates::among(self, asked, first)))
        }));
        let chosen = chosen.ok().flatten()?;
        let known = (chosen.0 as usize) < self.workers.len();
        (known && Candidates::among(self, asked, (false, false)).has_room(chosen)).then_some(chosen)
    }

    /// Sets room aside on a worker that is known to have it.
    pub(super) fn reserve(&mut self, worker: WorkerId, class: ClassId) {
        let Some(asked) = self.classes[class.0 as usize].as_mut() else { return };
        let chosen = &mut self.workers[worker.0 as usize];
        assert!(chosen.free_slots > 0 && chosen.free.has(&asked.need), "a balancer chooses what has room");
        chosen.free.take(&asked.need, 1);
        chosen.comes_under(asked.rule);
        if let Some(place) = asked.place.as_deref() {
            self.joined_group |= self.groups.comes(worker.0, place, &mut chosen.company);
        }
        self.placed += 1;
        self.slots_changed(worker.0, |worker| worker.free_slots -= 1);
    }

    /// Frees what a job had.
    pub fn release(&mut self, worker: WorkerId, class: ClassId) {
        let Some(left) = self.classes[class.0 as usize].as_ref() else { return };
        let there = &mut self.workers[worker.0 as usize];
        there.free.give(&left.need);
        there.goes_under(left.rule);
        if let Some(place) = left.place.as_deref() {
            self.groups.goes(worker.0, place, &mut there.company);
        }
        self.placed -= 1;
        self.slots_changed(worker.0, |worker| worker.free_slots += 1);
        self.freed(worker);
    }

    /// Something has become free on a worker: what runs there without having anything comes first.
    pub(super) fn freed(&mut self, worker: WorkerId) {
        self.house_strays(worker);
        self.let_in(worker.0);
        let waits = self.hold.filter(|_| self.is_held(worker)).map(|hold| hold.class);
        let waits = waits.and_then(|class| self.classes[class.0 as usize].as_ref());
        if waits.is_some_and(|waits| !self.has_company(worker.0, waits)) {
            // Nothing is to be had there any more.
            self.hold = None;
        }
    }

    /// Whether a job of a group has come to a worker that had none of it, since this was asked last.
    pub(in crate::machine) fn take_joined(&mut self) -> bool {
        std::mem::take(&mut self.joined_group)
    }

    /// How many slots are free on workers that take work.
    #[must_use]
    pub fn open_slots(&self) -> u64 {
        self.open_slots
    }

    /// How many jobs all workers have, and how many workers there are.
    #[must_use]
    pub fn load(&self) -> (u64, u32) {
        (self.placed, self.joined)
    }

    /// How many slots of a worker there are.
    pub(super) fn slots(&self, worker: WorkerId) -> u32 {
        self.workers[worker.0 as usize].slots
    }

    /// How many slots of a worker are free.
    #[must_use]
    pub fn free_slots(&self, worker: WorkerId) -> u32 {
        self.workers[worker.0 as usize].free_slots
    }

    /// Whether any worker could run jobs of a class, were it idle but for the company that they want to have; of a gang,
    /// whether enough of them could.
    #[must_use]
    pub fn is_able(&self, class: ClassId) -> bool {
        self.classes[class.0 as usize].as_ref().is_some_and(|class| match class.workers {
            1 if class.place.is_none() => !class.able.is_empty(),
            workers => self.able_now(class).take(workers as usize).count() == workers as usize,
        })
    }

    /// How much memory a job of a class is given, in bytes.
    pub(crate) fn memory(&self, class: ClassId) -> u64 {
        self.classes[class.0 as usize].as_ref().map_or(0, |class| class.request.resources.memory)
    }

    /// The most memory that could be asked for beside the rest of a request, so that a worker could run it, were it idle; of a
    /// gang, enough of them. Nothing where none could run it as it is.
    pub(crate) fn most_memory(&self, request: &Request, rule: u32) -> Option<u64> {
        let need = Need::of(&request.resources, &self.names);
        let mut lacking = request.resources.worker_count() as usize;
        let place = request.resources.placement()?;
        let require = self.rules[rule as usize].require.iter().chain(place.required());
        for (memory, workers) in self.shapes.memories(&request.runs, &need, &require) {
            let takes_work = |worker: &u32| !self.workers[*worker as usize].draining;
            let there = workers.ones().filter(takes_work).take(lacking).count();
            lacking -= there;
            if lacking == 0 {
                return Some(memory);
            }
        }
        None
    }

    /// Whether a job of a class would find room on a worker if jobs of other classes were gone, and all that runs there without
    /// having been placed there: that is about to end.
    pub(crate) fn would_fit(&self, worker: WorkerId, class: ClassId, gone: &[ClassId]) -> bool {
        let there = &self.workers[worker.0 as usize];
        let Some(asked) = self.classes[class.0 as usize].as_ref() else { return false };
        let (mut free, slots) = there.without_strays();
        for gone in gone.iter().filter_map(|gone| self.classes[gone.0 as usize].as_ref()) {
            free.give(&gone.need);
        }
        slots + gone.len() > 0
            && free.has(&asked.need)
            && self.is_apart_without(worker.0, asked.rule, gone)
            && self.welcomes_without(worker.0, asked, gone)
    }

    /// A rule by its number.
    #[must_use]
    pub fn rule(&self, number: u32) -> &Rule {
        &self.rules[number as usize]
    }

    /// How much of what is needed a worker lacks, of the greatest part, in thousandths of the need; a slot counts as
    /// a whole.
    pub(crate) fn lack(&self, worker: WorkerId, needs: &Resources) -> u64 {
        let there = &self.workers[worker.0 as usize];
        let slot = if there.has_slot() { 0 } else { 1_000 };
        there.free.lack(&Need::of(needs, &self.names)) + slot
    }

    /// Which resource a worker has too little of, how much is needed and how much is free; a slot is a resource too, and who
    /// runs more than there is room for has none.
    pub(crate) fn missing(&self, worker: WorkerId, needs: &Resources) -> Option<(String, u64, u64)> {
        let there = &self.workers[worker.0 as usize];
        let named = self.names.amounts(needs, &there.free);
        let short = named.into_iter().find(|(_, need, free)| need > free);
        short.or_else(|| (!there.has_slot()).then(|| ("slots".to_owned(), 1, 0)))
    }

    /// Whether any worker has room for a job of a class now, that is at a level or below it.
    #[must_use]
    pub fn may_have_room(&mut self, class: ClassId, level: Priority) -> bool {
        let Some(known) = self.classes[class.0 as usize].as_ref() else { return false };
        if known.workers > 1 {
            return self.may_have(known);
        }
        let asked = Asked { class, level, key: 0 };
        let mut at = 0;
        loop {
            let Some(known) = self.classes[class.0 as usize].as_ref() else { return false };
            let Some(worker) = self.first_open(known, at) else { return false };
            if !self.admits(worker, known) {
                self.shut_out(worker, class);
            } else if self.spares(WorkerId(worker), asked) {
                return true;
            }
            at = worker + 1;
        }
    }

    /// Whether a worker that could run jobs of a class has as much free, and nobody from whom they are kept apart.
    pub(super) fn admits(&self, worker: u32, class: &Class) -> bool {
        self.workers[worker as usize].free.has(&class.need)
            && self.is_apart(worker, class.rule)
            && self.groups.welcome(worker, class.place())
    }

    /// Whether jobs of a class may be on a worker beside what is there under their rule.
    pub(in crate::machine) fn is_apart(&self, worker: u32, rule: u32) -> bool {
        !self.rules[rule as usize].apart
            || self.workers[worker as usize].apart.iter().all(|(of, _)| *of != rule)
    }

    /// As [`Fleet::is_apart`], if jobs of some classes were gone, and what was not placed there.
    fn is_apart_without(&self, worker: u32, rule: u32, gone: &[ClassId]) -> bool {
        if !self.rules[rule as usize].apart {
            return true;
        }
        let there = &self.workers[worker as usize];
        let under = there.apart.iter().find(|(of, _)| *of == rule).map_or(0, |(_, n)| *n);
        let classes = gone.iter().filter_map(|gone| self.classes[gone.0 as usize].as_ref());
        let goes = classes.filter(|class| class.rule == rule).count() + there.strays_under(rule);
        goes >= under as usize
    }

    /// Notes that there is no room for a class on a worker before something is freed there.
    pub(super) fn shut_out(&mut self, worker: u32, class: ClassId) {
        if let Some(known) = self.classes[class.0 as usize].as_mut()
            && known.room.clear(worker)
        {
            self.workers[worker as usize].shut_out.push(class.0);
        }
    }

    /// What had found no room on a worker and fits there now may look there again.
    fn let_in(&mut self, at: u32) {
        let worker = &mut self.workers[at as usize];
        let (free, apart) = (&worker.free, &worker.apart);
        let (classes, rules, groups) = (&mut self.classes, &self.rules, &self.groups);
        worker.shut_out.retain(|class| {
            let Some(class) = classes[*class as usize].as_mut() else { return false };
            if !free.has(&class.need) {
                return true;
            }
            let kept_apart =
                rules[class.rule as usize].apart && apart.iter().any(|(of, _)| *of == class.rule);
            let kept_apart = kept_apart || !groups.welcome(at, class.place());
            if !kept_apart && class.able.has(at) {
                class.room.set(at);
            }
            kept_apart
        });
    }

    /// Changes how many slots of a worker are free, and everything that goes by it.
    pub(super) fn slots_changed(&mut self, at: u32, change: impl FnOnce(&mut Worker)) {
        let worker = &mut self.workers[at as usize];
        let counted = |worker: &Worker| if worker.draining || worker.crowded { 0 } else { worker.free_slots };
        let before = counted(worker);
        change(worker);
        let after = counted(worker);
        self.open_slots = self.open_slots - u64::from(before) + u64::from(after);
        if before > 0 && after > 0 && load(before) == load(after) {
            // It stays where it is, as one with many free slots mostly does.
            return;
        }
        if before > 0 {
            self.by_free[load(before)].clear(at);
            self.open.clear(at);
        }
        if after > 0 {
            self.by_free[load(after)].set(at);
            self.open.set(at);
        }
    }
}

fn load(free_slots: u32) -> usize {
    (free_slots as usize).min(LOADS) - 1
}
