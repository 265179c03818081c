//! Where a job may run, and beside whom.

use super::resources::Resources;
use super::selector::Selector;
use crate::error::Fault;
use crate::id::{NAME_MAX, Name};
use crate::text::shown;

mod code;

/// Where a job may run, and with whom: what it requires of the labels of its worker and would rather have, which groups it is
/// of, and whose company it seeks or shuns.
///
/// A group is a name that jobs of a tenant say of themselves ([`JobSpecBuilder::group`]). Other tenants have others under the
/// same name. That a job of a group is on a worker means that room is set aside for it there, from the moment it is assigned
/// until it has ended; a run goes on when its company ends before it does. What is kept apart is kept apart whoever comes first.
///
/// A job says it with the methods of [`JobSpecBuilder`], and [`JobSpec::placement`] returns it. It is a part of the job's
/// request, so jobs that say different things are in different lanes. It is kept as resources whose names begin with
/// `hodei.place.`: a program that does not know of placement finds no worker that has them.
///
/// [`JobSpecBuilder`]: super::JobSpecBuilder
/// [`JobSpecBuilder::group`]: super::JobSpecBuilder::group
/// [`JobSpec::placement`]: super::JobSpec::placement
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    require: Vec<Selector>,
    prefer: Vec<Selector>,
    groups: Vec<String>,
    beside: Vec<String>,
    near: Vec<String>,
    apart: Vec<String>,
}

impl Placement {
    /// The most selectors and groups that a job may name in all.
    pub const TERMS_MAX: usize = 16;
    /// The most values that one selector may name.
    pub const VALUES_MAX: usize = 16;
    /// The most bytes that all labels, values and groups may have together.
    pub const BYTES_MAX: usize = 1_024;

    /// Anywhere, with anybody.
    #[must_use]
    pub fn anywhere() -> Self {
        Self::default()
    }

    /// Asks for workers to which a selector applies.
    #[must_use]
    pub fn require(mut self, selector: Selector) -> Self {
        add(&mut self.require, selector.in_order());
        self
    }

    /// Takes workers first to which a selector applies.
    #[must_use]
    pub fn prefer(mut self, selector: Selector) -> Self {
        add(&mut self.prefer, selector.in_order());
        self
    }

    /// Makes the job one of a group.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        add(&mut self.groups, group.into());
        self
    }

    /// Asks for a worker on which a job of a group is.
    #[must_use]
    pub fn beside(mut self, group: impl Into<String>) -> Self {
        add(&mut self.beside, group.into());
        self
    }

    /// Takes workers first on which a job of a group is.
    #[must_use]
    pub fn prefer_beside(mut self, group: impl Into<String>) -> Self {
        add(&mut self.near, group.into());
        self
    }

    /// Asks for a worker on which no job of a group is, and lets none come.
    #[must_use]
    pub fn apart(mut self, group: impl Into<String>) -> Self {
        add(&mut self.apart, group.into());
        self
    }

    /// Returns what must apply to the worker, in order.
    #[must_use]
    pub fn required(&self) -> &[Selector] {
        &self.require
    }

    /// Returns what applies to the workers that come first, in order.
    #[must_use]
    pub fn preferred(&self) -> &[Selector] {
        &self.prefer
    }

    /// Returns the groups that the job is of, in order.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// Returns the groups of which each has a job on the worker, in order.
    #[must_use]
    pub fn groups_beside(&self) -> &[String] {
        &self.beside
    }

    /// Returns the groups of which each has a job on the workers that come first, in order.
    #[must_use]
    pub fn groups_near(&self) -> &[String] {
        &self.near
    }

    /// Returns the groups of which none has a job on the worker, in order.
    #[must_use]
    pub fn groups_apart(&self) -> &[String] {
        &self.apart
    }

    /// Says whether it leaves everything open.
    #[must_use]
    pub fn is_anywhere(&self) -> bool {
        self.require.is_empty() && self.prefer.is_empty() && self.names_no_group()
    }

    /// Says whether it names no group: it is the same for jobs of all tenants then.
    #[must_use]
    pub fn names_no_group(&self) -> bool {
        self.named().all(|(_, groups)| groups.is_empty())
    }

    /// The groups that it names, and what for.
    fn named(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let named: [(_, &[String]); 4] = [
            ("group", &self.groups),
            ("beside", &self.beside),
            ("prefer_beside", &self.near),
            ("apart", &self.apart),
        ];
        named.into_iter()
    }

    /// Returns every rule that it breaks.
    pub(super) fn faults(&self, faults: &mut Vec<Fault>) {
        let selectors = [("require", &self.require), ("prefer", &self.prefer)];
        let selectors =
            || selectors.into_iter().flat_map(|(field, all)| all.iter().map(move |one| (field, one)));
        let groups = || self.named().flat_map(|(field, all)| all.iter().map(move |one| (field, one)));
        let terms = selectors().count() + groups().count();
        if terms > Self::TERMS_MAX {
            faults.push(too(terms, "placement", "too_many", Self::TERMS_MAX));
        }
        let texts = |selector: &Selector| {
            selector.label().len() + selector.values().iter().map(String::len).sum::<usize>()
        };
        let bytes: usize = selectors().map(|(_, selector)| texts(selector)).sum();
        let bytes = bytes + groups().map(|(_, group)| group.len()).sum::<usize>();
        if bytes > Self::BYTES_MAX {
            faults.push(too(bytes, "placement", "too_long", Self::BYTES_MAX));
        }
        selectors().for_each(|(field, selector)| self::selector(field, selector, faults));
        faults.extend(groups().filter_map(|(field, group)| Name::fault(field, group)));
        for group in self.apart.iter().filter(|group| self.beside.contains(group)) {
            faults.push(Fault::new("apart", "contradiction").detail(shown(group)));
        }
    }
}

fn selector(field: &'static str, selector: &Selector, faults: &mut Vec<Fault>) {
    let label = format!("{field}.label");
    faults.extend(super::validate::line(&label, selector.label(), NAME_MAX));
    let values = selector.values();
    let field = format!("{field}.values");
    if selector.names_values() && values.is_empty() {
        faults.push(Fault::new(&*field, "empty").detail(shown(selector.label())));
    }
    if values.len() > Placement::VALUES_MAX {
        faults.push(too(values.len(), &field, "too_many", Placement::VALUES_MAX));
    }
    for value in values.iter().filter(|value| !value.is_empty()) {
        faults.extend(super::validate::line(&field, value, Placement::BYTES_MAX));
    }
}

fn too(got: usize, field: &str, code: &'static str, limit: usize) -> Fault {
    Fault::new(field, code).limit(limit as u64).detail(format!("got {got}"))
}

/// Adds to a list in order what is not in it.
fn add<T: Ord>(list: &mut Vec<T>, one: T) {
    if let Err(at) = list.binary_search(&one) {
        list.insert(at, one);
    }
}

impl Resources {
    /// Returns where the job may run; nothing where that is written in a form that this version does not know.
    #[must_use]
    pub fn placement(&self) -> Option<Placement> {
        code::read(self.customs().map(|(name, _)| name))
    }

    /// Says where the job may run, in the place of what was said before.
    pub(super) fn placed(self, placement: &Placement) -> Self {
        let before: Vec<Name> =
            self.customs().map(|(name, _)| name).filter(|name| code::is_part(name)).cloned().collect();
        let plain = before.into_iter().fold(self, |all, name| all.custom(name, 0));
        code::write(placement).into_iter().fold(plain, |all, name| all.custom(name, 1))
    }

    /// Says whether a name of a resource is one under which it is kept where a job may run.
    pub(super) fn is_place(name: &Name) -> bool {
        code::is_part(name)
    }
}

#[cfg(test)]
mod tests;
