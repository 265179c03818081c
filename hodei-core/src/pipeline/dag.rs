//! Order in a graph, or the cycle that forbids one.
//!
//! Kahn (1962): take what waits for nothing, tell those who wait for it, repeat. Edges lie in one array grouped by
//! their parent, so the whole costs O(steps + edges) and no recursion, however deep a chain is.

/// A graph as the parents of each step, by index.
pub(super) struct Graph {
    /// For each step where its children begin in `children`; one more entry than steps.
    starts: Vec<usize>,
    children: Vec<usize>,
    parents: Vec<Vec<usize>>,
}

impl Graph {
    pub(super) fn new(parents: Vec<Vec<usize>>) -> Self {
        let mut starts = vec![0; parents.len() + 1];
        for parent in parents.iter().flatten() {
            starts[parent + 1] += 1;
        }
        for n in 1..starts.len() {
            starts[n] += starts[n - 1];
        }
        let mut next = starts.clone();
        let mut children = vec![0; starts[parents.len()]];
        for (child, own) in parents.iter().enumerate() {
            for parent in own {
                children[next[*parent]] = child;
                next[*parent] += 1;
            }
        }
        Self { starts, children, parents }
    }

    /// Returns the steps so that each comes after its parents, earlier ones first; or a cycle, its first step again
    /// at the end.
    pub(super) fn order(&self) -> Result<Vec<usize>, Vec<usize>> {
        let mut waits: Vec<usize> = self.parents.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..waits.len()).filter(|step| waits[*step] == 0).collect();
        let mut done = 0;
        while done < order.len() {
            let step = order[done];
            done += 1;
            for &child in &self.children[self.starts[step]..self.starts[step + 1]] {
                waits[child] -= 1;
                if waits[child] == 0 {
                    order.push(child);
                }
            }
        }
        if order.len() == waits.len() { Ok(order) } else { Err(self.cycle(&waits)) }
    }

    /// Walks from a step that still waits to a parent that still waits until one comes again.
    fn cycle(&self, waits: &[usize]) -> Vec<usize> {
        let Some(start) = waits.iter().position(|waits| *waits > 0) else { return Vec::new() };
        let mut at = vec![None; waits.len()];
        let mut path = Vec::new();
        let mut step = start;
        loop {
            if let Some(first) = at[step] {
                path.drain(..first);
                // The walk went from child to parent; a cycle is told from parent to child.
                path.push(step);
                path.reverse();
                return path;
            }
            at[step] = Some(path.len());
            path.push(step);
            let Some(parent) = self.parents[step].iter().find(|parent| waits[**parent] > 0) else {
                return path;
            };
            step = *parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_told_from_parent_to_child() {
        // 0 ← 1 ← 2 ← 3 ← 1: 1 waits for 3.
        let graph = Graph::new(vec![vec![], vec![0, 3], vec![1], vec![2]]);
        assert_eq!(graph.order(), Err(vec![1, 2, 3, 1]));
    }

    #[test]
    fn a_million_deep_chain_has_an_order() {
        let parents = (0..1_000_000).map(|n: usize| n.checked_sub(1).into_iter().collect()).collect();
        let order = Graph::new(parents).order().unwrap();
        assert!(order.is_sorted() && order.len() == 1_000_000);
    }
}
