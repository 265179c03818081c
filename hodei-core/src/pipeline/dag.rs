//! Order in a graph, or the cycle that forbids one.
//!
//! Kahn (1962): take what waits for nothing, tell those who wait for it, repeat. Edges lie in two arrays, grouped by
//! their child and by their parent, so the whole costs O(steps + edges), a handful of allocations and no recursion,
//! however deep a chain is.

use std::cmp::Reverse;

/// The place of a step in its pipeline.
pub(super) type StepIndex = u32;

/// The parents of each step, by index, one step after the other.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// For each step where its parents end in `parents`; they begin where those of the step before end.
    ends: Vec<usize>,
    parents: Vec<StepIndex>,
}

impl Graph {
    pub(super) fn with_capacity(steps: usize) -> Self {
        Self { ends: Vec::with_capacity(steps), parents: Vec::with_capacity(steps) }
    }

    /// Adds a parent to the step that is being described.
    pub(super) fn parent(&mut self, parent: StepIndex) {
        self.parents.push(parent);
    }

    /// Ends the description of a step; the next one follows.
    pub(super) fn end_step(&mut self) {
        self.ends.push(self.parents.len());
    }

    /// Returns where the parents of a step lie among those of all.
    pub(super) fn span(&self, step: usize) -> std::ops::Range<usize> {
        let start = if step == 0 { 0 } else { self.ends[step - 1] };
        start..self.ends[step]
    }

    /// Returns the parents of a step.
    pub(super) fn parents(&self, step: usize) -> &[StepIndex] {
        &self.parents[self.span(step)]
    }

    /// Returns the steps so that each comes after its parents, earlier ones first; or a cycle, its first step again
    /// at the end.
    pub(super) fn order(&self) -> Result<Vec<StepIndex>, Vec<StepIndex>> {
        let steps = self.ends.len();
        let (starts, children) = self.children();
        let mut waits: Vec<usize> = (0..steps).map(|step| self.span(step).len()).collect();
        let mut order = Vec::with_capacity(steps);
        order.extend((0..).zip(&waits).filter(|(_, waits)| **waits == 0).map(|(step, _)| step));
        let mut done = 0;
        while let Some(step) = order.get(done).map(|step: &StepIndex| *step as usize) {
            done += 1;
            for &child in &children[starts[step]..starts[step + 1]] {
                let waits = &mut waits[child as usize];
                *waits -= 1;
                if *waits == 0 {
                    order.push(child);
                }
            }
        }
        if order.len() == steps { Ok(order) } else { Err(self.cycle(&waits)) }
    }

    /// Brings an order into one in which steps come first on whose end the longest way to the end of the pipeline depends,
    /// where each step lasts as long as told. No step lasts nothing, so each still comes after its parents.
    pub(super) fn critical_first(&self, order: &mut [StepIndex], lasts: &[u64]) {
        let mut way: Vec<u64> = lasts.to_vec();
        for step in order.iter().rev() {
            let behind = way[*step as usize];
            for parent in self.parents(*step as usize) {
                let parent = *parent as usize;
                way[parent] = way[parent].max(lasts[parent].saturating_add(behind));
            }
        }
        order.sort_by_key(|step| Reverse(way[*step as usize]));
    }

    /// Turns the edges round: for each step where its children begin, with one more entry than steps, and the children.
    fn children(&self) -> (Vec<usize>, Vec<StepIndex>) {
        let steps = self.ends.len();
        // Counted two places on: while they are filled in, the starts move to where they belong.
        let mut starts = vec![0_usize; steps + 2];
        for parent in &self.parents {
            starts[*parent as usize + 2] += 1;
        }
        for n in 2..starts.len() {
            starts[n] += starts[n - 1];
        }
        let mut children = vec![0; self.parents.len()];
        for (child, step) in (0..).zip(0..steps) {
            for parent in self.parents(step) {
                let next = &mut starts[*parent as usize + 1];
                children[*next] = child;
                *next += 1;
            }
        }
        (starts, children)
    }

    /// Walks from a step that still waits to a parent that still waits until one comes again.
    fn cycle(&self, waits: &[usize]) -> Vec<StepIndex> {
        let waiting = |step: &StepIndex| waits[*step as usize] > 0;
        let Some(mut step) = (0..).zip(waits).find(|(_, waits)| **waits > 0).map(|(step, _)| step) else {
            return Vec::new();
        };
        let mut at = vec![None; waits.len()];
        let mut path: Vec<StepIndex> = Vec::new();
        loop {
            if let Some(first) = at[step as usize] {
                path.drain(..first);
                // The walk went from child to parent; a cycle is told from parent to child.
                path.push(step);
                path.reverse();
                return path;
            }
            at[step as usize] = Some(path.len());
            path.push(step);
            let Some(parent) = self.parents(step as usize).iter().find(|parent| waiting(parent)) else {
                return path;
            };
            step = *parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph<'a>(steps: impl IntoIterator<Item = &'a [StepIndex]>) -> Graph {
        let mut graph = Graph::default();
        for parents in steps {
            parents.iter().for_each(|parent| graph.parent(*parent));
            graph.end_step();
        }
        graph
    }

    #[test]
    fn a_step_comes_after_its_parents_and_earlier_ones_come_first() {
        for (steps, order) in [
            (vec![&[][..]], vec![0]),
            (vec![&[], &[], &[]], vec![0, 1, 2]),
            (vec![&[1], &[2], &[]], vec![2, 1, 0]),
            (vec![&[], &[0], &[0], &[1, 2]], vec![0, 1, 2, 3]),
            (vec![&[3], &[3], &[0, 1], &[]], vec![3, 0, 1, 2]),
        ] {
            assert_eq!(graph(steps.clone()).order(), Ok(order), "{steps:?}");
        }
    }

    #[test]
    fn steps_on_the_longest_way_come_first() {
        // 0 leads to 1, and to 2, 3 and 4 one after the other; 5 stands alone.
        let steps: [&[StepIndex]; 6] = [&[], &[0], &[0], &[2], &[3], &[]];
        for (lasts, expected) in [
            ([1, 1, 1, 1, 1, 1], [0, 2, 3, 5, 1, 4]),
            ([1, 9, 1, 1, 1, 1], [0, 1, 2, 3, 5, 4]),
            ([1, 1, 1, 1, 1, 99], [5, 0, 2, 3, 1, 4]),
        ] {
            let graph = graph(steps);
            let mut order = graph.order().unwrap();
            graph.critical_first(&mut order, &lasts);
            assert_eq!(order, expected, "{lasts:?}");
        }
    }

    #[test]
    fn a_cycle_is_told_from_parent_to_child() {
        // 0 ← 1 ← 2 ← 3 ← 1: 1 waits for 3.
        let steps: [&[StepIndex]; 4] = [&[], &[0, 3], &[1], &[2]];
        assert_eq!(graph(steps).order(), Err(vec![1, 2, 3, 1]));
    }

    #[test]
    fn what_only_waits_for_a_cycle_is_not_told() {
        // 2 and 3 wait for each other, 0 for 1 and 1 for 2.
        let steps: [&[StepIndex]; 4] = [&[1], &[2], &[3], &[2]];
        assert_eq!(graph(steps).order(), Err(vec![2, 3, 2]));
    }

    #[test]
    fn a_million_deep_chain_has_an_order_and_its_ring_none() {
        const STEPS: StepIndex = 1_000_000;
        let mut chain = Graph::with_capacity(STEPS as usize);
        let mut ring = Graph::with_capacity(STEPS as usize);
        for step in 0..STEPS {
            if step > 0 {
                chain.parent(step - 1);
            }
            ring.parent((step + STEPS - 1) % STEPS);
            chain.end_step();
            ring.end_step();
        }
        assert!(chain.order().unwrap().iter().copied().eq(0..STEPS));
        let cycle = ring.order().unwrap_err();
        assert_eq!((cycle.len(), cycle.first()), (STEPS as usize + 1, cycle.last()));
        assert!(cycle.windows(2).all(|pair| pair[1] == (pair[0] + 1) % STEPS), "each follows its parent");
    }
}
