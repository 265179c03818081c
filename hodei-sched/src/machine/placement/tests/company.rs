//! What jobs say of where they may run, and beside whom, against a plain list of who is where.

use std::collections::BTreeMap;

use hodei_core::Tenant;
use hodei_core::job::{JobSpec, Placement, Selector};

use super::*;

/// A job, and on which workers it has room.
struct Placed {
    at: Vec<WorkerId>,
    class: ClassId,
    tenant: Tenant,
    needs: Resources,
    place: Placement,
}

/// A worker as it said of itself.
struct Known {
    offer: Offer,
    draining: bool,
}

/// What a job asks for.
#[derive(Clone, Debug)]
struct Wanted {
    tenant: Tenant,
    needs: Resources,
    place: Placement,
    request: Request,
}

struct Truth {
    fleet: Fleet,
    balancer: Box<dyn Balancer>,
    rule: u32,
    workers: BTreeMap<WorkerId, Known>,
    jobs: Vec<Placed>,
}

fn share(one: &[String], other: &[String]) -> bool {
    one.iter().any(|name| other.contains(name))
}

impl Truth {
    fn rule(&self) -> &Rule {
        self.fleet.rule(self.rule)
    }

    /// The jobs of a tenant on a worker, but for some.
    fn there<'t>(
        &'t self,
        worker: WorkerId,
        tenant: &'t Tenant,
        gone: &'t [usize],
    ) -> impl Iterator<Item = &'t Placement> {
        let here = self
            .jobs
            .iter()
            .enumerate()
            .filter(move |(n, job)| job.at.contains(&worker) && !gone.contains(n));
        here.filter(move |(_, job)| job.tenant == *tenant).map(|(_, job)| &job.place)
    }

    /// Whether the company that is sought is on a worker.
    fn has_company(&self, worker: WorkerId, wanted: &Wanted, gone: &[usize]) -> bool {
        wanted.place.groups_beside().iter().all(|group| {
            let of = |place: &Placement| place.groups().contains(group);
            let anywhere = self.jobs.iter().any(|job| job.tenant == wanted.tenant && of(&job.place));
            let first = of(&wanted.place) && !anywhere;
            first || self.there(worker, &wanted.tenant, gone).any(of)
        })
    }

    /// Whether a worker could run it, were it idle but for the company that it seeks.
    fn could_run(&self, worker: WorkerId, wanted: &Wanted) -> bool {
        let Known { offer, draining } = &self.workers[&worker];
        let mut required = self.rule().require.iter().chain(wanted.place.required());
        !draining && wanted.needs.fits(&offer.capacity) && required.all(|one| one.applies(&offer.labels))
    }

    fn has_room(&self, worker: WorkerId, wanted: &Wanted, gone: &[usize]) -> bool {
        let offer = &self.workers[&worker].offer;
        let here =
            self.jobs.iter().enumerate().filter(|(n, job)| job.at.contains(&worker) && !gone.contains(n));
        let mut left = (offer.slots, offer.capacity.clone());
        for (_, job) in here {
            let rest =
                left.1.checked_sub(&job.needs.clone().workers(1)).expect("no resource is promised twice");
            left = (left.0.checked_sub(1).expect("no slot is promised twice"), rest);
        }
        let shuns = |one: &Placement, other: &Placement| share(one.groups_apart(), other.groups());
        let alone = self
            .there(worker, &wanted.tenant, gone)
            .all(|place| !shuns(place, &wanted.place) && !shuns(&wanted.place, place));
        self.could_run(worker, wanted)
            && left.0 > 0
            && wanted.needs.fits(&left.1)
            && alone
            && self.has_company(worker, wanted, gone)
    }

    /// In which order workers come: the lowest number first.
    fn comes(&self, worker: WorkerId, wanted: &Wanted) -> u8 {
        let labels = &self.workers[&worker].offer.labels;
        let preferred =
            self.rule().prefer.iter().chain(wanted.place.preferred()).all(|one| one.applies(labels));
        let near = wanted.place.groups_near();
        let near = near
            .iter()
            .all(|group| self.there(worker, &wanted.tenant, &[]).any(|place| place.groups().contains(group)));
        match (preferred, near) {
            (true, true) => 0,
            (false, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
        }
    }

    fn class(&mut self, wanted: &Wanted) -> ClassId {
        self.fleet.class_for(&wanted.tenant, &wanted.request, self.rule)
    }

    fn place(&mut self, wanted: &Wanted) -> bool {
        let class = self.class(wanted);
        let able: Vec<WorkerId> =
            self.workers.keys().copied().filter(|worker| self.has_room(*worker, wanted, &[])).collect();
        let gang = wanted.needs.worker_count() as usize;
        let possible = able.len() >= gang;
        assert_eq!(Room::of(&self.fleet).take(class, Priority::DEFAULT, 1) > 0, possible, "{wanted:?}");
        if gang == 1 {
            assert_eq!(self.fleet.may_have_room(class, Priority::DEFAULT), possible, "{wanted:?}");
        }
        let Some(first) = self.fleet.place(asked(class, 32), &mut *self.balancer) else {
            assert!(!possible, "there is room for {wanted:?}");
            return false;
        };
        let mut at = self.fleet.others();
        at.push(first);
        assert!(at.iter().all(|worker| able.contains(worker)), "{wanted:?} is at {at:?}, of {able:?}");
        if gang == 1 {
            let best = able.iter().map(|worker| self.comes(*worker, wanted)).min();
            assert_eq!(Some(self.comes(first, wanted)), best, "{wanted:?}");
        }
        self.fleet.count(class);
        let Wanted { tenant, needs, place, .. } = wanted.clone();
        self.jobs.push(Placed { at, class, tenant, needs, place });
        true
    }

    /// As many as are said to have room have room.
    fn place_many(&mut self, wanted: &Wanted, n: u32) {
        let class = self.class(wanted);
        let taken = Room::of(&self.fleet).take(class, Priority::DEFAULT, n);
        let begins = share(wanted.place.groups_beside(), wanted.place.groups());
        let placed = (0..n).take_while(|_| self.place(wanted)).count();
        if wanted.needs.worker_count() == 1 && !begins {
            assert_eq!(placed, taken as usize, "{wanted:?}");
        } else {
            assert_eq!(placed > 0, taken > 0, "{wanted:?}");
        }
    }

    fn release(&mut self, n: usize) {
        if !self.jobs.is_empty() {
            let job = self.jobs.remove(n % self.jobs.len());
            job.at.iter().for_each(|worker| self.fleet.release(*worker, job.class));
            self.fleet.discount(job.class);
        }
    }

    fn worker(&self, n: usize) -> Option<WorkerId> {
        self.workers.keys().copied().nth(n % self.workers.len().max(1))
    }

    fn leave(&mut self, n: usize) {
        let Some(worker) = self.worker(n) else { return };
        self.fleet.leave(worker);
        self.workers.remove(&worker);
        for job in std::mem::take(&mut self.jobs) {
            if !job.at.contains(&worker) {
                self.jobs.push(job);
                continue;
            }
            let left = job.at.iter().filter(|other| **other != worker);
            left.for_each(|other| self.fleet.release(*other, job.class));
            self.fleet.discount(job.class);
        }
    }

    /// What is said of a class without placing it is true as well.
    fn ask(&mut self, wanted: &Wanted, n: usize) {
        let class = self.class(wanted);
        let with = self
            .workers
            .keys()
            .filter(|worker| self.could_run(**worker, wanted) && self.has_company(**worker, wanted, &[]));
        assert_eq!(self.fleet.is_able(class), with.count() >= wanted.needs.worker_count() as usize);
        let Some(worker) = self.worker(n) else { return };
        if self.workers[&worker].draining || !self.could_run(worker, wanted) {
            return;
        }
        let here = (0..self.jobs.len()).filter(|n| self.jobs[*n].at.contains(&worker));
        let gone: Vec<usize> = here.take(n % 4).collect();
        let classes: Vec<ClassId> = gone.iter().map(|n| self.jobs[*n].class).collect();
        assert_eq!(
            self.fleet.would_fit(worker, class, &classes),
            self.has_room(worker, wanted, &gone),
            "{wanted:?} without {classes:?}"
        );
    }
}

fn selectors() -> impl Strategy<Value = Selector> {
    let label = || prop_oneof![Just("zone".to_owned()), Just("disk".to_owned())];
    let values = || prop::collection::vec("[a-c]", 1..3);
    prop_oneof![
        (label(), values()).prop_map(|(label, values)| Selector::In(label, values)),
        (label(), values()).prop_map(|(label, values)| Selector::NotIn(label, values)),
        label().prop_map(Selector::Has),
        label().prop_map(Selector::Lacks),
    ]
}

fn maybe<T: std::fmt::Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(one, 0..2)
}

fn labels() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    (maybe("[abc]"), maybe("[ab]"))
}

fn rules() -> impl Strategy<Value = (Vec<Selector>, Vec<Selector>)> {
    (maybe(selectors()), maybe(selectors()))
}

/// What jobs want; few say much.
fn wanted() -> impl Strategy<Value = Wanted> {
    let groups = || maybe("[xyz]");
    let place = (maybe(selectors()), maybe(selectors()), groups(), groups(), groups(), groups());
    let numbers = (amounts(5), prop_oneof![4 => Just(1_u32), 1 => 2..4_u32], 0..2_u8);
    (numbers, place, 0..16_u8).prop_map(|((needs, gang, tenant), place, said)| {
        let (require, prefer, groups, beside, near, apart) = place;
        let needs = resources(needs).workers(gang);
        let mut spec = JobSpec::command(["true"]).resources(needs.clone());
        if said & 1 != 0 {
            spec = require.into_iter().fold(spec, |spec, one| spec.require(one));
            spec = prefer.into_iter().fold(spec, |spec, one| spec.prefer(one));
        }
        spec = groups.into_iter().fold(spec, |spec, group| spec.group(group));
        spec = near.into_iter().fold(spec, |spec, group| spec.prefer_beside(group));
        if said & 2 != 0 {
            spec = apart.into_iter().fold(spec, |spec, group| spec.apart(group));
        } else if said & 4 != 0 {
            spec = beside.into_iter().fold(spec, |spec, group| spec.beside(group));
        }
        let spec = spec.build().expect("a valid spec");
        let place = spec.placement().expect("it was said just now");
        let tenant = Tenant::new(format!("tenant-{tenant}")).expect("a name");
        Wanted { tenant, needs, place, request: spec.request() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn jobs_are_where_they_want_to_be_with_whom_they_want_and_no_room_is_overlooked(
        kind in 0_u8..4,
        ops in prop::collection::vec(
            (0_u8..16, 0_u32..5, wanted(), amounts(20), any::<prop::sample::Index>(), labels(), rules()),
            1..100,
        ),
    ) {
        let balancer: Box<dyn Balancer> = match kind {
            0 => Box::new(LeastLoaded),
            1 => Box::new(RoundRobin::new()),
            2 => Box::new(ResourceAware::new(Fit::Tightest)),
            _ => Box::new(TwoChoices::seeded(3)),
        };
        let mut fleet = Fleet::new();
        let rule = fleet.add_rule(Rule::anywhere());
        let (workers, jobs) = (BTreeMap::new(), Vec::new());
        let mut truth = Truth { fleet, balancer, rule, workers, jobs };
        for (key, (op, slots, wanted, has, which, (zones, disks), (require, prefer))) in (0..).zip(ops) {
            match op {
                0..=2 => {
                    let zones = zones.iter().map(|zone| ("zone", zone.as_str()));
                    let labels: Vec<_> = zones.chain(disks.iter().map(|disk| ("disk", disk.as_str()))).collect();
                    let offer = offer(slots, resources(has), &labels);
                    let worker = truth.fleet.join(&offer, key);
                    truth.workers.insert(worker, Known { offer, draining: false });
                }
                3 => truth.leave(which.index(64)),
                4 => {
                    if let Some(worker) = truth.worker(which.index(64)) {
                        let known = truth.workers.get_mut(&worker).expect("it is there");
                        known.draining = !known.draining;
                        truth.fleet.set_draining(worker, known.draining);
                    }
                }
                5 => {
                    let rule = require.into_iter().fold(Rule::anywhere(), Rule::require);
                    let rule = prefer.into_iter().fold(rule, Rule::prefer);
                    truth.fleet.set_rule(truth.rule, rule);
                }
                6..=8 => truth.release(which.index(64)),
                9 => truth.place_many(&wanted, slots),
                10 => truth.ask(&wanted, which.index(64)),
                _ => drop(truth.place(&wanted)),
            }
        }
    }
}

fn of(spec: hodei_core::job::JobSpecBuilder) -> Request {
    spec.build().expect("a valid spec").request()
}

fn command() -> hodei_core::job::JobSpecBuilder {
    JobSpec::command(["true"])
}

#[test]
fn what_is_held_for_a_job_that_shuns_others_is_kept_from_them() {
    let mut fleet = Fleet::new();
    let worker = fleet.join(&offer(4, Resources::none(), &[]), 0);
    let [loud, quiet, plain] =
        [command().group("loud"), command().apart("loud"), command()].map(|spec| fleet.class(&of(spec), 0));
    assert_eq!(fleet.place(asked(loud, 32), &mut LeastLoaded), Some(worker));
    assert_eq!(fleet.place(asked(quiet, 40), &mut LeastLoaded), None);
    fleet.hold(quiet, Priority::new(40).expect("a level"));
    assert_eq!(fleet.held(), Some((quiet, worker)));
    assert_eq!(Room::of(&fleet).take(loud, Priority::DEFAULT, 1), 0);
    assert_eq!(fleet.place(asked(loud, 32), &mut LeastLoaded), None, "it would wait for one after the other");
    assert_eq!(fleet.place(asked(plain, 32), &mut LeastLoaded), Some(worker), "it delays nobody");
    fleet.release(worker, loud);
    assert_eq!(fleet.place(asked(quiet, 40), &mut LeastLoaded), Some(worker));
    assert_eq!(fleet.place(asked(loud, 63), &mut LeastLoaded), None, "whoever comes first");
}

#[test]
fn nothing_is_held_for_a_job_whose_company_has_gone() {
    let mut fleet = Fleet::new();
    let worker = fleet.join(&offer(1, Resources::none(), &[]), 0);
    let [host, guest] =
        [command().group("host"), command().beside("host")].map(|spec| fleet.class(&of(spec), 0));
    assert!(!fleet.is_able(guest), "nobody is there to be beside");
    fleet.place(asked(host, 32), &mut LeastLoaded);
    assert!(fleet.is_able(guest));
    fleet.hold(guest, Priority::DEFAULT);
    assert_eq!(fleet.held(), Some((guest, worker)));
    fleet.release(worker, host);
    assert_eq!((fleet.held(), fleet.is_able(guest)), (None, false));
}

#[test]
fn the_groups_that_are_remembered_are_bounded_and_those_in_use_stay() {
    let mut fleet = Fleet::new();
    let worker = fleet.join(&offer(2, Resources::none(), &[]), 0);
    let kept = fleet.class(&of(command().group("kept")), 0);
    fleet.count(kept);
    assert_eq!(fleet.place(asked(kept, 32), &mut LeastLoaded), Some(worker));
    for n in 0..5_000 {
        fleet.class(&of(command().group(format!("g{n}"))), 0);
    }
    assert!(fleet.groups.len() <= 1_026, "{} groups are known", fleet.groups.len());
    let shuns = fleet.class(&of(command().apart("kept")), 0);
    assert_eq!(fleet.place(asked(shuns, 32), &mut LeastLoaded), None);
    fleet.release(worker, kept);
    assert_eq!(fleet.place(asked(shuns, 32), &mut LeastLoaded), Some(worker));
}

#[test]
fn what_a_later_version_said_finds_nobody() {
    let mut fleet = Fleet::new();
    fleet.join(&offer(1, Resources::none(), &[]), 0);
    let later = Name::literal("hodei.place.00.q.new..");
    let class = fleet.class(&request(Resources::none().custom(later, 1)), 0);
    assert!(!fleet.is_able(class));
    fleet.join(&offer(1, Resources::none(), &[]), 1);
    assert_eq!((fleet.is_able(class), fleet.place(asked(class, 32), &mut LeastLoaded)), (false, None));
}
