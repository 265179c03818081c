//! Who is on which worker: the groups of jobs, and the inverted index from each to the workers.
//!
//! A class that seeks company is looked for only among the workers that have it. One that shuns somebody finds no room where he
//! is, as if something were lacking there, and is let in when he goes; so is whoever is shunned. What is kept apart is kept
//! apart whoever comes first.

use std::collections::{BTreeMap, HashMap};

use hodei_core::Tenant;
use hodei_core::job::{Placement, Resources, Selector};

use super::bits::Bits;
use super::fleet::{Class, Fleet, WorkerId};
use super::strays::Stray;
use crate::queue::ClassId;

/// A group of a tenant's jobs.
#[derive(Debug, Default)]
struct Group {
    /// The workers on which a job of it is.
    there: Bits,
    /// Those on which one lingers that was not placed there: it is no company, and others are kept apart from it.
    lingers: Bits,
    /// The workers on which a job is that wants none of it.
    shunned: Bits,
    /// How many jobs of it are on all workers.
    jobs: u64,
    /// How often classes name it.
    uses: u32,
}

impl Group {
    /// Whether a job of it is on a worker, be it one that lingers.
    fn is_on(&self, at: u32) -> bool {
        self.there.has(at) || self.lingers.has(at)
    }
}

/// All groups that classes name, by number.
#[derive(Debug, Default)]
pub(super) struct Groups {
    numbers: HashMap<Tenant, BTreeMap<String, u32>>,
    all: Vec<Group>,
    free: Vec<u32>,
}

/// What the jobs of a class say of where they may run, beyond the rule of their queue.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) require: Vec<Selector>,
    pub(super) prefer: Vec<Selector>,
    /// The groups that they are of, want to be with, would like to be with and shun.
    groups: Vec<u32>,
    beside: Vec<u32>,
    pub(super) near: Vec<u32>,
    apart: Vec<u32>,
    /// They say something that this version does not know.
    pub(super) unknown: bool,
}

/// A group of which jobs are on a worker, how many are, how many linger, and how many there want none of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Company {
    group: u32,
    members: u32,
    lingering: u32,
    shy: u32,
}

impl Place {
    /// Reads what a request says; nothing where it leaves everything open.
    pub(super) fn of(resources: &Resources, tenant: &Tenant, groups: &mut Groups) -> Option<Box<Self>> {
        let Some(said) = resources.placement() else {
            return Some(Box::new(Self { unknown: true, ..Self::default() }));
        };
        if said.is_anywhere() {
            return None;
        }
        let mut numbers = |names: &[String]| names.iter().map(|name| groups.name(tenant, name)).collect();
        Some(Box::new(Self {
            groups: numbers(said.groups()),
            beside: numbers(said.groups_beside()),
            near: numbers(said.groups_near()),
            apart: numbers(said.groups_apart()),
            require: said.required().to_vec(),
            prefer: said.preferred().to_vec(),
            unknown: false,
        }))
    }

    fn named(&self) -> impl Iterator<Item = u32> + '_ {
        [&self.groups, &self.beside, &self.near, &self.apart].into_iter().flatten().copied()
    }

    pub(super) fn names_no_group(&self) -> bool {
        self.named().next().is_none()
    }

    /// Whether jobs of both are never on one worker.
    fn shuns(&self, other: &Self) -> bool {
        let is_of = |other: &Self, groups: &[u32]| groups.iter().any(|group| other.groups.contains(group));
        is_of(other, &self.apart) || is_of(self, &other.apart)
    }
}

impl Groups {
    /// The number of a group that a class names.
    fn name(&mut self, tenant: &Tenant, name: &str) -> u32 {
        if let Some(number) = self.number(tenant, name) {
            self.all[number as usize].uses += 1;
            return number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.all.push(Group::default());
            u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
        });
        self.all[number as usize].uses = 1;
        self.numbers.entry(tenant.clone()).or_default().insert(name.to_owned(), number);
        number
    }

    fn number(&self, tenant: &Tenant, name: &str) -> Option<u32> {
        self.numbers.get(tenant)?.get(name).copied()
    }

    /// Forgets what a class named that is forgotten, and of which no job is anywhere.
    pub(super) fn forget(&mut self, place: &Place) {
        let mut unused = false;
        for number in place.named() {
            let group = &mut self.all[number as usize];
            group.uses -= 1;
            unused |= group.uses == 0;
        }
        if unused {
            let (all, free) = (&self.all, &mut self.free);
            self.numbers.retain(|_, names| {
                names.retain(|_, number| {
                    let used = all[*number as usize].uses > 0;
                    if !used {
                        free.push(*number);
                    }
                    used
                });
                !names.is_empty()
            });
        }
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.values().map(BTreeMap::len).sum()
    }

    /// Notes that a job comes to a worker; whether it is the first of a group there.
    pub(super) fn comes(&mut self, at: u32, place: &Place, there: &mut Vec<Company>) -> bool {
        let mut first = false;
        for group in &place.groups {
            company(there, *group).members += 1;
            let of = &mut self.all[*group as usize];
            of.jobs += 1;
            first |= of.there.set(at);
        }
        for group in &place.apart {
            company(there, *group).shy += 1;
            self.all[*group as usize].shunned.set(at);
        }
        first
    }

    /// Notes that a job goes.
    pub(super) fn goes(&mut self, at: u32, place: &Place, there: &mut Vec<Company>) {
        for group in &place.groups {
            company(there, *group).members -= 1;
            self.all[*group as usize].jobs -= 1;
        }
        for group in &place.apart {
            company(there, *group).shy -= 1;
        }
        self.settle(at, there);
    }

    /// Notes that a job is on a worker that was not placed there.
    pub(super) fn lingers(&mut self, at: u32, place: &Place, there: &mut Vec<Company>) {
        place.groups.iter().for_each(|group| company(there, *group).lingering += 1);
        place.apart.iter().for_each(|group| company(there, *group).shy += 1);
        self.settle(at, there);
    }

    /// Notes that it has ended.
    pub(super) fn lingers_no_more(&mut self, at: u32, place: &Place, there: &mut Vec<Company>) {
        place.groups.iter().for_each(|group| company(there, *group).lingering -= 1);
        place.apart.iter().for_each(|group| company(there, *group).shy -= 1);
        self.settle(at, there);
    }

    /// Puts a worker into the sets in which it is by what is known of its company.
    fn settle(&mut self, at: u32, there: &mut Vec<Company>) {
        for Company { group, members, lingering, shy } in there.iter() {
            let of = &mut self.all[*group as usize];
            of.there.put(at, *members > 0);
            of.lingers.put(at, *lingering > 0);
            of.shunned.put(at, *shy > 0);
        }
        there.retain(|company| company.members + company.lingering + company.shy > 0);
    }

    /// Notes that a worker goes, with all that is on it.
    pub(super) fn leave(&mut self, at: u32, there: &mut Vec<Company>) {
        for Company { group, members, .. } in there.drain(..) {
            let of = &mut self.all[group as usize];
            of.jobs -= u64::from(members);
            of.there.clear(at);
            of.lingers.clear(at);
            of.shunned.clear(at);
        }
    }

    /// Whether nobody on a worker is shunned by jobs of a class, or shuns them.
    pub(super) fn welcome(&self, at: u32, place: Option<&Place>) -> bool {
        place.is_none_or(|place| {
            place.apart.iter().all(|group| !self.all[*group as usize].is_on(at))
                && place.groups.iter().all(|group| !self.all[*group as usize].shunned.has(at))
        })
    }

    /// Whether each group that jobs of a class would like to be with is on a worker.
    pub(super) fn is_near(&self, at: u32, near: &[u32]) -> bool {
        near.iter().all(|group| self.all[*group as usize].there.has(at))
    }

    /// The smallest of the sets of workers on which the groups are.
    pub(super) fn fewest(&self, groups: impl Iterator<Item = u32>) -> Option<&Bits> {
        groups.map(|group| &self.all[group as usize].there).min_by_key(|there| there.len())
    }
}

/// What is known of a group on a worker.
fn company(there: &mut Vec<Company>, group: u32) -> &mut Company {
    let at = there.iter().position(|company| company.group == group).unwrap_or_else(|| {
        there.push(Company { group, members: 0, lingering: 0, shy: 0 });
        there.len() - 1
    });
    &mut there[at]
}

impl Class {
    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }

    /// Whether jobs of both are never on one worker.
    pub(super) fn shuns(&self, other: &Self) -> bool {
        self.place().zip(other.place()).is_some_and(|(one, other)| one.shuns(other))
    }

    /// The groups that its jobs would like to be with.
    pub(super) fn near(&self) -> &[u32] {
        self.place().map_or(&[], |place| &place.near)
    }

    /// Whether its jobs shun each other.
    pub(super) fn shuns_itself(&self) -> bool {
        self.place().is_some_and(|place| place.shuns(place))
    }
}

impl Fleet {
    /// The groups that jobs of a class want to be with, but for those of which they may be the first.
    fn sought<'f>(&'f self, class: &'f Class) -> impl Iterator<Item = u32> + 'f {
        let place = class.place();
        // Those of a gang that have their place already are no company yet.
        let own = self.gang.len() as u64;
        let first = move |group: &u32| {
            place.is_some_and(|place| place.groups.contains(group))
                && self.groups.all[*group as usize].jobs == own
        };
        let beside = place.map_or(&[][..], |place| &place.beside);
        beside.iter().copied().filter(move |group| !first(group))
    }

    /// Whether jobs of a class want to be with each other, and are nowhere: the first one says where.
    pub(super) fn begins(&self, class: &Class) -> bool {
        class
            .place()
            .is_some_and(|place| !place.beside.is_empty() && self.sought(class).count() < place.beside.len())
    }

    /// Whether a worker has the company that jobs of a class want to have.
    pub(super) fn has_company(&self, worker: u32, class: &Class) -> bool {
        self.sought(class).all(|group| self.groups.all[group as usize].there.has(worker))
    }

    /// The workers among which those are that have the company that jobs of a class want to have; nothing where they want none.
    pub(super) fn company(&self, class: &Class) -> Option<&Bits> {
        class.place()?;
        self.groups.fewest(self.sought(class))
    }

    /// The first worker from a number on that may have room for a class.
    pub(super) fn first_open(&self, class: &Class, from: u32) -> Option<u32> {
        let Some(company) = self.company(class) else { return class.room.first_common(&self.open, from) };
        let mut at = from;
        while let Some(found) = company.first_common(&self.open, at) {
            if class.room.has(found) && self.has_company(found, class) {
                return Some(found);
            }
            at = found + 1;
        }
        None
    }

    /// The workers that could run jobs of a class beside those who are on them now, were they idle otherwise.
    pub(super) fn able_now<'f>(&'f self, class: &'f Class) -> impl Iterator<Item = u32> + 'f {
        let among = self.company(class).unwrap_or(&class.able);
        among.ones().filter(|worker| class.able.has(*worker) && self.has_company(*worker, class))
    }

    /// Whether a worker would have the company that jobs of a class want to have, and nobody that they shun, if jobs of some
    /// classes were gone, and what was not placed there.
    pub(super) fn welcomes_without(&self, worker: u32, class: &Class, gone: &[ClassId]) -> bool {
        let Some(place) = class.place() else { return true };
        let gone = || gone.iter().filter_map(|gone| self.classes[gone.0 as usize].as_ref()?.place());
        let worker = &self.workers[worker as usize];
        let there = |group: u32| {
            let company = worker.company.iter().find(|there| there.group == group);
            company.map_or((0, 0), |of| (of.members as usize, of.shy as usize))
        };
        let members = |group: u32| {
            there(group).0.saturating_sub(gone().filter(|gone| gone.groups.contains(&group)).count())
        };
        let shy = |group: u32| {
            let goes = gone().chain(worker.strays.iter().filter_map(Stray::place));
            there(group).1.saturating_sub(goes.filter(|goes| goes.apart.contains(&group)).count())
        };
        place.apart.iter().all(|group| members(*group) == 0)
            && place.groups.iter().all(|group| shy(*group) == 0)
            && self.sought(class).all(|group| members(group) > 0)
    }

    /// Whether jobs of a class want to be with those of another one.
    pub(in crate::machine) fn seeks(&self, class: ClassId, other: ClassId) -> bool {
        let place = |class: ClassId| self.classes[class.0 as usize].as_ref().and_then(Class::place);
        let both = place(class).zip(place(other));
        both.is_some_and(|(one, other)| one.beside.iter().any(|group| other.groups.contains(group)))
    }

    /// A group because of which a job has to stay away from a worker: one that it shuns, or of which it is and somebody there
    /// wants none.
    pub(in crate::machine) fn kept_apart<'p>(
        &self,
        worker: WorkerId,
        tenant: &Tenant,
        place: &'p Placement,
    ) -> Option<&'p str> {
        let on = |is_on: fn(&Group, u32) -> bool| {
            move |name: &&String| {
                let group = self.groups.number(tenant, name).map(|number| &self.groups.all[number as usize]);
                group.is_some_and(|group| is_on(group, worker.0))
            }
        };
        let shuns = place.groups_apart().iter().find(on(Group::is_on));
        let shunned = on(|group, at| group.shunned.has(at));
        shuns.or_else(|| place.groups().iter().find(shunned)).map(String::as_str)
    }

    /// A group that a job wants to be with and of which nobody is on a worker.
    pub(in crate::machine) fn missed<'p>(
        &self,
        worker: WorkerId,
        tenant: &Tenant,
        place: &'p Placement,
    ) -> Option<&'p str> {
        let misses = |name: &&String| {
            let group = self.groups.number(tenant, name).map(|number| &self.groups.all[number as usize]);
            let begins = place.groups().contains(name) && group.is_none_or(|group| group.jobs == 0);
            !begins && group.is_none_or(|group| !group.there.has(worker.0))
        };
        place.groups_beside().iter().find(misses).map(String::as_str)
    }
}
