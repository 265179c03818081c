//! What runs on workers without having been placed there: it takes room until it has ended.
//!
//! An agent comes with runs of another node, or goes on for a while with one that was taken from it. Such a run keeps what was
//! set aside for it, of a gang on all of its workers, and whoever is kept apart from it stays away. It is no company: nobody
//! is placed beside what is about to end.

use hodei_core::job::{Epoch, Resources};
use hodei_core::{JobId, Tenant};

use super::amounts::{Amounts, Need};
use super::fleet::{Fleet, Worker, WorkerId};
use super::group::Place;
use crate::queue::ClassId;

/// Under which epoch which job runs.
type Run = (JobId, Epoch);

/// A run that was not placed on its worker, and takes room there until it has ended.
#[derive(Debug)]
pub(super) struct Stray {
    run: Run,
    need: Need,
    /// Whether that is set aside.
    has: bool,
    /// The rule of its queue, and what its job says of its place.
    rule: u32,
    place: Option<Box<Place>>,
    part: Part,
}

/// Which part of a run it is.
#[derive(Debug)]
enum Part {
    /// The run itself, with the other workers on which it has room, of a gang.
    Whole(Vec<WorkerId>),
    /// The room of a gang that runs on that worker.
    Of(WorkerId),
}

/// What is known of a run that was not placed.
#[derive(Debug)]
pub(in crate::machine) struct Found<'f> {
    pub(in crate::machine) run: Run,
    pub(in crate::machine) tenant: &'f Tenant,
    pub(in crate::machine) resources: &'f Resources,
    /// The rule of its queue.
    pub(in crate::machine) rule: u32,
    /// The workers on which it has room beside its own, as far as they are there.
    pub(in crate::machine) beside: &'f [WorkerId],
}

impl Fleet {
    /// Sets room aside for a run that is under way on a worker and was not placed there, until [`Fleet::keep_strays`] lets it go.
    /// Where there is not enough, nothing is placed there before there is. Of a gang, on those of its workers, too, that have
    /// come since it was last said.
    pub(in crate::machine) fn add_stray(&mut self, worker: WorkerId, found: &Found<'_>) {
        let known = self.workers[worker.0 as usize].strays.iter_mut().find(|stray| stray.is_run(found.run));
        let others: Vec<WorkerId> = match known {
            Some(Stray { part: Part::Whole(others), .. }) => {
                let new = found.beside.iter().filter(|at| !others.contains(at));
                let new: Vec<WorkerId> = new.copied().collect();
                others.extend(&new);
                new
            }
            Some(_) => return,
            None => {
                self.stray(worker, found, Part::Whole(found.beside.to_vec()));
                found.beside.to_vec()
            }
        };
        for other in others.into_iter().filter(|other| *other != worker) {
            self.stray(other, found, Part::Of(worker));
        }
    }

    /// As [`Fleet::add_stray`], of a job of a class that had been placed on a worker and on others.
    pub(in crate::machine) fn strays(
        &mut self,
        worker: WorkerId,
        run: Run,
        tenant: &Tenant,
        class: ClassId,
        beside: &[WorkerId],
    ) {
        let Some(known) = self.classes[class.0 as usize].as_ref() else { return };
        let (rule, request) = (known.rule, std::sync::Arc::clone(&known.request));
        let resources = &request.resources;
        self.add_stray(worker, &Found { run, tenant, resources, rule, beside });
    }

    fn stray(&mut self, worker: WorkerId, found: &Found<'_>, part: Part) {
        let place = Place::of(found.resources, found.tenant, &mut self.groups);
        let there = &mut self.workers[worker.0 as usize];
        there.comes_under(found.rule);
        if let Some(place) = place.as_deref() {
            self.groups.lingers(worker.0, place, &mut there.company);
        }
        let need = Need::of(found.resources, &self.names).known();
        there.strays.push(Stray { run: found.run, need, has: false, rule: found.rule, place, part });
        self.house_strays(worker);
    }

    /// Lets those strays of a worker go that are not to be kept: they have ended.
    pub(in crate::machine) fn keep_strays(&mut self, worker: WorkerId, keep: impl Fn(&Run) -> bool) {
        let ended =
            self.let_strays_go(worker, |stray| matches!(stray.part, Part::Whole(_)) && !keep(&stray.run));
        self.parts_end(worker, ended);
    }

    /// Frees what those had on other workers that have ended on one.
    fn parts_end(&mut self, worker: WorkerId, ended: Vec<Stray>) {
        for Stray { run, part, .. } in ended {
            let Part::Whole(others) = part else { continue };
            for other in others {
                // One that has come in the place of another has none of it.
                let of = |stray: &Stray| {
                    stray.run == run && matches!(stray.part, Part::Of(host) if host == worker)
                };
                self.let_strays_go(other, of);
            }
        }
    }

    /// A worker goes, and what strayed there: what that had on others is free.
    pub(super) fn strays_leave(&mut self, worker: WorkerId) {
        let gone = self.let_strays_go(worker, |_| true);
        for stray in &gone {
            let Part::Of(host) = stray.part else { continue };
            let runs = self.workers[host.0 as usize].strays.iter_mut().find(|known| known.is_run(stray.run));
            if let Some(Stray { part: Part::Whole(others), .. }) = runs {
                // Where it comes again room is set aside again, under whichever number.
                others.retain(|other| *other != worker);
            }
        }
        self.parts_end(worker, gone);
    }

    /// Takes strays out, and frees what they had.
    fn let_strays_go(&mut self, worker: WorkerId, goes: impl Fn(&Stray) -> bool) -> Vec<Stray> {
        let there = &mut self.workers[worker.0 as usize];
        if there.strays.is_empty() {
            return Vec::new();
        }
        let all = std::mem::take(&mut there.strays);
        let (gone, kept): (Vec<Stray>, Vec<Stray>) = all.into_iter().partition(goes);
        there.strays = kept;
        let mut slots = 0;
        for stray in &gone {
            if stray.has {
                there.free.give(&stray.need);
                slots += 1;
            }
            there.goes_under(stray.rule);
            if let Some(place) = stray.place.as_deref() {
                self.groups.lingers_no_more(worker.0, place, &mut there.company);
                self.groups.forget(place);
            }
        }
        self.placed -= u64::from(slots);
        self.slots_changed(worker.0, |worker| worker.free_slots += slots);
        self.freed(worker);
        gone
    }

    /// Whether more runs on a worker than there is room for: then nothing more may begin there.
    pub(in crate::machine) fn is_crowded(&self, worker: WorkerId) -> bool {
        self.workers[worker.0 as usize].crowded
    }

    /// Sets aside what strays take, as far as there is room.
    pub(super) fn house_strays(&mut self, worker: WorkerId) {
        let there = &mut self.workers[worker.0 as usize];
        if there.strays.iter().all(|stray| stray.has) && !there.crowded {
            return;
        }
        let mut slots = 0;
        for stray in there.strays.iter_mut().filter(|stray| !stray.has) {
            if there.free_slots > slots && there.free.has(&stray.need) {
                there.free.take(&stray.need, 1);
                (stray.has, slots) = (true, slots + 1);
            }
        }
        let crowded = there.strays.iter().any(|stray| !stray.has);
        let becomes_crowded = crowded && !there.crowded;
        if there.crowded && !crowded {
            self.relieved.push(worker);
        }
        self.placed += u64::from(slots);
        self.slots_changed(worker.0, |worker| {
            worker.free_slots -= slots;
            worker.crowded = crowded;
        });
        if becomes_crowded && self.is_held(worker) {
            // Another one may have room sooner.
            self.unhold();
        }
    }

    /// Takes the workers that are crowded no more, since this was asked last.
    pub(in crate::machine) fn take_relieved(&mut self) -> Vec<WorkerId> {
        std::mem::take(&mut self.relieved)
    }
}

impl Worker {
    /// What is free, and how many slots, if all strays were gone.
    pub(super) fn without_strays(&self) -> (Amounts, usize) {
        let (mut free, mut slots) = (self.free.clone(), self.free_slots as usize);
        for stray in self.strays.iter().filter(|stray| stray.has) {
            free.give(&stray.need);
            slots += 1;
        }
        (free, slots)
    }

    /// How many strays are under a rule.
    pub(super) fn strays_under(&self, rule: u32) -> usize {
        self.strays.iter().filter(|stray| stray.rule == rule).count()
    }
}

impl Stray {
    /// What its job says of where it may run.
    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }

    fn is_run(&self, run: Run) -> bool {
        self.run == run && matches!(self.part, Part::Whole(_))
    }
}
