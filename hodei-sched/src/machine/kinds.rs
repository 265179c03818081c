//! A table of kinds of runs: by queue, and by what people call the job, which is its step or its handler.

use std::collections::HashMap;

use hodei_core::Name;
use hodei_core::job::JobSpec;

/// So many kinds are remembered; of more, the half that was seen longest ago is forgotten.
pub(super) const KINDS_MAX: usize = 1_024;

/// What is known of each kind, and when it was seen last.
#[derive(Debug)]
pub(super) struct Kinds<K> {
    queues: HashMap<Name, HashMap<Name, (u64, K)>>,
    len: usize,
    seen: u64,
}

impl<K> Default for Kinds<K> {
    fn default() -> Self {
        Self { queues: HashMap::new(), len: 0, seen: 0 }
    }
}

impl<K: Default> Kinds<K> {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is known of the kind of a job.
    pub(super) fn get(&self, spec: &JobSpec) -> Option<&K> {
        self.queues.get(spec.queue())?.get(spec.name()).map(|(_, kind)| kind)
    }

    /// Notes something of the kind of a job.
    pub(super) fn note(&mut self, spec: &JobSpec, change: impl FnOnce(&mut K)) {
        self.seen += 1;
        let known = self.queues.get_mut(spec.queue()).and_then(|names| names.get_mut(spec.name()));
        if let Some((seen, kind)) = known {
            *seen = self.seen;
            return change(kind);
        }
        if self.len >= KINDS_MAX {
            self.forget();
        }
        let mut kind = K::default();
        change(&mut kind);
        self.queues.entry(spec.queue().clone()).or_default().insert(spec.name().clone(), (self.seen, kind));
        self.len += 1;
    }

    /// Forgets the half of the kinds that was seen longest ago.
    fn forget(&mut self) {
        let mut seen: Vec<u64> =
            self.queues.values().flat_map(HashMap::values).map(|(seen, _)| *seen).collect();
        let middle = seen.len() / 2;
        let (_, limit, _) = seen.select_nth_unstable(middle);
        let limit = *limit;
        self.queues.retain(|_, names| {
            names.retain(|_, (seen, _)| *seen > limit);
            !names.is_empty()
        });
        self.len = self.queues.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_that_are_remembered_are_bounded_and_the_last_ones_stay() {
        let spec =
            |n: u32| JobSpec::command(["true"]).name(format!("kind-{n}")).build().expect("a valid spec");
        let mut kinds = Kinds::<u32>::default();
        for n in 0..10_000 {
            kinds.note(&spec(n), |noted| *noted += 1);
            assert!(kinds.len <= KINDS_MAX);
        }
        assert_eq!(kinds.len, kinds.queues.values().map(HashMap::len).sum::<usize>());
        kinds.note(&spec(9_999), |noted| *noted += 1);
        assert_eq!((kinds.get(&spec(9_999)), kinds.get(&spec(0))), (Some(&2), None));
    }
}
