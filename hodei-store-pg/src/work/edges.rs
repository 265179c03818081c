//! Who waits for whom, as far as a transaction knows.

use std::collections::{BTreeMap, HashMap, HashSet};

use hodei_core::JobId;
use hodei_core::job::Requires;

/// An edge that is yet to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewEdge {
    pub(super) parent: JobId,
    pub(super) child: JobId,
    pub(super) requires: Requires,
    /// Whether the child was told of the parent's end.
    pub(super) told: bool,
}

/// The edges that were read and those that are yet to be written. A parent may have very many children, so none is looked for
/// among all of them.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// The children of parents: each, and whether it was told.
    children: HashMap<JobId, BTreeMap<JobId, bool>>,
    /// The parents whose stored children were read.
    read: HashSet<JobId>,
    /// By parent and child.
    new: BTreeMap<(JobId, JobId), NewEdge>,
    /// Stored ones whose child was told, parent and child.
    told: Vec<(JobId, JobId)>,
}

impl Edges {
    /// Those among parents whose stored children are yet to be read.
    pub(super) fn unread(&self, parents: &[JobId]) -> Vec<JobId> {
        parents.iter().copied().filter(|id| !self.read.contains(id)).collect()
    }

    /// Keeps in mind whose stored children were read.
    pub(super) fn set_read(&mut self, parents: Vec<JobId>) {
        self.read.extend(parents);
    }

    /// Keeps a stored edge, unless more is known of it.
    pub(super) fn found(&mut self, parent: JobId, child: JobId, told: bool) {
        self.children.entry(parent).or_default().entry(child).or_insert(told);
    }

    /// Keeps an edge that is yet to be written.
    pub(super) fn add(&mut self, edge: NewEdge) {
        self.children.entry(edge.parent).or_default().insert(edge.child, edge.told);
        self.new.insert((edge.parent, edge.child), edge);
    }

    /// The children of a parent, in the order of their ids.
    pub(super) fn children_of(&self, parent: JobId) -> impl Iterator<Item = JobId> {
        self.children.get(&parent).into_iter().flat_map(|children| children.keys().copied())
    }

    /// Whether a child was told of a parent's end; nothing where no such edge is known.
    pub(super) fn was_told(&self, parent: JobId, child: JobId) -> Option<bool> {
        self.children.get(&parent)?.get(&child).copied()
    }

    /// Notes that a child is told of a parent's end, and says whether it was not before.
    pub(super) fn tell(&mut self, parent: JobId, child: JobId) -> bool {
        let edge = self.children.get_mut(&parent).and_then(|children| children.get_mut(&child));
        match edge {
            Some(told) if !*told => *told = true,
            _ => return false,
        }
        match self.new.get_mut(&(parent, child)) {
            Some(new) => new.told = true,
            None => self.told.push((parent, child)),
        }
        true
    }

    /// Takes what is to be written: edges that are new, and parents and children of stored ones of which the child was told.
    pub(super) fn take_written(&mut self) -> (Vec<NewEdge>, Vec<(JobId, JobId)>) {
        (std::mem::take(&mut self.new).into_values().collect(), std::mem::take(&mut self.told))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use hodei_core::Tenant;

    use super::*;

    /// So many that a look at each for each would take a minute and more, and one look at each takes none of it.
    const MANY: u64 = 100_000;

    fn id(n: u64) -> JobId {
        JobId::from_parts(n << 12, Tenant::default().slot(), n)
    }

    #[test]
    fn very_many_children_of_one_parent_are_read_added_and_told_in_no_square_of_time() {
        let (mut edges, began) = (Edges::default(), Instant::now());
        let parent = id(0);
        for n in (1..=MANY).rev() {
            edges.found(parent, id(n), n % 4 == 0);
            let requires = Requires::Success;
            edges.add(NewEdge { parent, child: id(MANY + n), requires, told: false });
        }
        assert!(edges.children_of(parent).eq((1..=2 * MANY).map(id)));
        let untold = (1..=2 * MANY).filter(|n| edges.tell(parent, id(*n)));
        assert_eq!(untold.count() as u64, MANY / 4 * 3 + MANY);
        assert!((1..=2 * MANY).all(|n| edges.was_told(parent, id(n)) == Some(true)));
        let (new, told) = edges.take_written();
        assert_eq!((new.len() as u64, told.len() as u64), (MANY, MANY / 4 * 3));
        assert!(new.iter().all(|edge| edge.told));
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }

    #[test]
    fn what_is_known_of_an_edge_is_not_forgotten_when_it_is_read_again() {
        let mut edges = Edges::default();
        edges.found(id(1), id(2), false);
        assert!(edges.tell(id(1), id(2)));
        edges.found(id(1), id(2), false);
        assert!(!edges.tell(id(1), id(2)), "it is told once");
        assert_eq!(edges.was_told(id(1), id(3)), None);
        assert_eq!(edges.take_written().1, [(id(1), id(2))]);
    }
}
