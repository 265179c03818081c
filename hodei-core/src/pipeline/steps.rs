//! The steps of a pipeline that is being built, and how one is found by its id.

use std::hash::{BuildHasher, RandomState};

use super::dag::StepIndex;
use super::spec::Step;

/// Steps of a chunk: some 60 KiB, which allocators keep for reuse when they are freed.
const CHUNK: usize = 256;

/// Steps in the order in which they were added, in chunks: none is ever moved to make room, and the memory of those that
/// were built already serves the jobs that are made of the rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    /// All but the last are full.
    chunks: Vec<Vec<Step>>,
}

impl Steps {
    pub(super) fn push(&mut self, step: Step) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(step),
            // The first chunk grows, for most pipelines are small.
            None => self.chunks.push(vec![step]),
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(step);
                self.chunks.push(chunk);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        let last = self.chunks.last().map_or(0, Vec::len);
        self.chunks.len().saturating_sub(1) * CHUNK + last
    }

    pub(super) fn get(&self, step: StepIndex) -> Option<&Step> {
        let step = step as usize;
        self.chunks.get(step / CHUNK)?.get(step % CHUNK)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Step> {
        self.chunks.iter().flatten()
    }
}

impl IntoIterator for Steps {
    type Item = Step;
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Vec<Step>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.chunks.into_iter().flatten()
    }
}

/// Finds steps by id: open addressing, at most half full, probed one after the other.
///
/// A slot is eight bytes, half of them bits of the hash, so that a look-up reads the text of the step that it finds and of
/// hardly any other; the map of the standard library would keep the texts' addresses and be three times as large. Ids come
/// from files that anybody may have written, hence the standard library's keyed hash: nobody can choose ids that collide.
pub(super) struct StepIds<'a> {
    steps: &'a Steps,
    /// 0 where empty, else the upper half of a hash, and the index + 1.
    slots: Vec<u64>,
    hasher: RandomState,
}

impl<'a> StepIds<'a> {
    /// Makes an empty index with room for all steps.
    pub(super) fn of(steps: &'a Steps) -> Self {
        let slots = vec![0; (steps.len() * 2).next_power_of_two()];
        Self { steps, slots, hasher: RandomState::new() }
    }

    /// Adds a step; of several with one id the last is found. Says whether it is the first one of its id.
    pub(super) fn insert(&mut self, step: StepIndex, id: &str) -> bool {
        let (slot, tag) = self.probe(id);
        let first = self.slots[slot] == 0;
        self.slots[slot] = tag | (u64::from(step) + 1);
        first
    }

    /// Returns the step of an id.
    pub(super) fn get(&self, id: &str) -> Option<StepIndex> {
        self.slots[self.probe(id).0].checked_sub(1).map(index)
    }

    /// Returns the slot where an id is or belongs, and the half of its hash that is kept there.
    fn probe(&self, id: &str) -> (usize, u64) {
        let hash = self.hasher.hash_one(id);
        let tag = hash & TAG;
        let mask = self.slots.len() - 1;
        let mut slot = index(hash) as usize & mask;
        loop {
            let here = self.slots[slot];
            let found = here & TAG == tag
                && here != 0
                && self.steps.get(index(here - 1)).is_some_and(|step| step.id() == id);
            if here == 0 || found {
                return (slot, tag);
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// The half of a hash that slots keep; the other half says where to look.
const TAG: u64 = !0 << 32;

fn index(slot: u64) -> StepIndex {
    StepIndex::try_from(slot & !TAG).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobSpec;

    fn steps(ids: impl IntoIterator<Item = String>) -> Steps {
        let mut steps = Steps::default();
        ids.into_iter().for_each(|id| steps.push(Step::new(id, JobSpec::command(["true"]))));
        steps
    }

    #[test]
    fn steps_keep_their_order_and_their_places() {
        for count in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let steps = steps((0..count).map(|n| n.to_string()));
            assert_eq!(steps.len(), count);
            assert!(steps.iter().enumerate().all(|(n, step)| step.id() == n.to_string()));
            for n in 0..count {
                let at = StepIndex::try_from(n).unwrap();
                assert_eq!(steps.get(at).map(Step::id), Some(n.to_string().as_str()));
            }
            assert!(steps.get(StepIndex::try_from(count).unwrap()).is_none());
            assert_eq!(steps.into_iter().count(), count);
        }
    }

    #[test]
    fn every_step_is_found_by_its_id_and_nothing_else_is() {
        let steps = steps((0..10_000).map(|n| format!("s{n}")));
        let mut ids = StepIds::of(&steps);
        assert_eq!(ids.get("s0"), None);
        for (n, step) in (0..).zip(steps.iter()) {
            assert!(ids.insert(n, step.id()));
        }
        assert!((0..).zip(steps.iter()).all(|(n, step)| ids.get(step.id()) == Some(n)));
        assert!((10_000..20_000).all(|n| ids.get(&format!("s{n}")).is_none()));
    }

    #[test]
    fn of_two_steps_with_one_id_the_last_is_found() {
        let steps = steps(["a", "b", "a"].map(str::to_owned));
        let mut ids = StepIds::of(&steps);
        assert_eq!([0, 1, 2].map(|n| ids.insert(n, steps.get(n).unwrap().id())), [true, true, false]);
        assert_eq!((ids.get("a"), ids.get("b"), ids.get("")), (Some(2), Some(1), None));
    }
}
