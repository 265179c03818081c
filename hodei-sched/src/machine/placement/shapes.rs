//! Workers that are alike, and which of them a request fits.
//!
//! What a worker runs, says of itself and has in all makes its shape; whether a request could ever run is decided once
//! for each shape. An inverted index leads from what is asked to the shapes: from what is run, and from each label.

use std::collections::HashMap;

use hodei_core::gateway::Offer;
use hodei_core::job::{Resources, Runs, Selector};
use hodei_core::text::TextMap;

use super::amounts::{Amounts, Names, Need};
use super::bits::Bits;

/// What workers of a shape have in common.
type Key = (Vec<Runs>, TextMap, Resources);

#[derive(Debug)]
struct Shape {
    key: Key,
    capacity: Amounts,
    workers: Bits,
}

/// All shapes, by number.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    shapes: Vec<Shape>,
    by_key: HashMap<Key, u32>,
    free: Vec<u32>,
    /// The shapes that workers have now.
    all: Bits,
    runs: HashMap<Runs, Bits>,
    labels: HashMap<String, HashMap<String, Bits>>,
}

impl Shapes {
    /// Adds a worker; returns its shape.
    pub(super) fn join(&mut self, worker: u32, offer: &Offer, names: &Names) -> u32 {
        let mut runs = offer.runs.clone();
        runs.sort();
        runs.dedup();
        let key = (runs, offer.labels.clone(), offer.capacity.clone());
        if let Some(shape) = self.by_key.get(&key) {
            self.shapes[*shape as usize].workers.set(worker);
            return *shape;
        }
        let next = u32::try_from(self.shapes.len()).unwrap_or(u32::MAX);
        let shape = self.free.pop().unwrap_or(next);
        self.all.set(shape);
        for runs in &key.0 {
            self.runs.entry(runs.clone()).or_default().set(shape);
        }
        for (label, value) in key.1.iter() {
            let values = self.labels.entry(label.to_owned()).or_default();
            values.entry(value.to_owned()).or_default().set(shape);
        }
        self.by_key.insert(key.clone(), shape);
        let mut workers = Bits::default();
        workers.set(worker);
        let new = Shape { capacity: Amounts::of(&key.2, names), key, workers };
        match self.shapes.get_mut(shape as usize) {
            Some(free) => *free = new,
            None => self.shapes.push(new),
        }
        shape
    }

    /// Takes a worker out.
    pub(super) fn leave(&mut self, worker: u32, shape: u32) {
        let left = &mut self.shapes[shape as usize];
        left.workers.clear(worker);
        if !left.workers.is_empty() {
            return;
        }
        let key = left.key.clone();
        self.by_key.remove(&key);
        self.all.clear(shape);
        self.free.push(shape);
        for runs in &key.0 {
            forget(&mut self.runs, runs, shape);
        }
        for (label, value) in key.1.iter() {
            if let Some(values) = self.labels.get_mut(label) {
                forget(values, value, shape);
                if values.is_empty() {
                    self.labels.remove(label);
                }
            }
        }
    }

    pub(super) fn capacity(&self, shape: u32) -> &Amounts {
        &self.shapes[shape as usize].capacity
    }

    /// Whether workers of a shape run something, have as much in all, and all selectors apply to them.
    pub(super) fn fits<'s>(
        &self,
        shape: u32,
        runs: &Runs,
        need: &Need,
        mut selectors: impl Iterator<Item = &'s Selector>,
    ) -> bool {
        let Shape { key: (offered, labels, _), capacity, .. } = &self.shapes[shape as usize];
        offered.contains(runs) && capacity.has(need) && selectors.all(|selector| selector.applies(labels))
    }

    /// Whether all selectors apply to workers of a shape.
    pub(super) fn suits<'s>(&self, shape: u32, mut selectors: impl Iterator<Item = &'s Selector>) -> bool {
        let Shape { key: (_, labels, _), .. } = &self.shapes[shape as usize];
        selectors.all(|selector| selector.applies(labels))
    }

    /// The workers that run something, have as much in all, and to which all selectors apply.
    pub(super) fn able<'s>(
        &self,
        runs: &Runs,
        need: &Need,
        selectors: impl Iterator<Item = &'s Selector>,
    ) -> Bits {
        let mut shapes = self.runs.get(runs).cloned().unwrap_or_default();
        for selector in selectors {
            self.select(&mut shapes, selector);
        }
        let mut workers = Bits::default();
        for shape in shapes.ones() {
            let shape = &self.shapes[shape as usize];
            if shape.capacity.has(need) {
                workers.add(&shape.workers);
            }
        }
        workers
    }

    /// As [`Shapes::able`], with the memory that the workers have, those with the most first.
    pub(super) fn memories<'s>(
        &self,
        runs: &Runs,
        need: &Need,
        selectors: &(impl Iterator<Item = &'s Selector> + Clone),
    ) -> Vec<(u64, &Bits)> {
        let fits = |shape: &u32| self.fits(*shape, runs, need, selectors.clone());
        let shapes = self.runs.get(runs).into_iter().flat_map(Bits::ones).filter(fits);
        let mut memories: Vec<(u64, &Bits)> = shapes
            .map(|shape| &self.shapes[shape as usize])
            .map(|Shape { key: (.., capacity), workers, .. }| (capacity.memory, workers))
            .collect();
        memories.sort_unstable_by_key(|(memory, _)| std::cmp::Reverse(*memory));
        memories
    }

    /// The workers to which all selectors apply.
    pub(super) fn selected<'s>(&self, selectors: impl Iterator<Item = &'s Selector>) -> Bits {
        let mut shapes = self.all.clone();
        for selector in selectors {
            self.select(&mut shapes, selector);
        }
        let mut workers = Bits::default();
        shapes.ones().for_each(|shape| workers.add(&self.shapes[shape as usize].workers));
        workers
    }

    fn select(&self, shapes: &mut Bits, selector: &Selector) {
        let of = |label: &String, values: &[String]| {
            let mut found = Bits::default();
            if let Some(known) = self.labels.get(label) {
                values.iter().filter_map(|value| known.get(value)).for_each(|bits| found.add(bits));
            }
            found
        };
        let having = |label: &String| {
            let mut found = Bits::default();
            self.labels.get(label).into_iter().flat_map(HashMap::values).for_each(|bits| found.add(bits));
            found
        };
        match selector {
            Selector::In(label, values) => shapes.keep(&of(label, values)),
            Selector::NotIn(label, values) => shapes.drop_all(&of(label, values)),
            Selector::Has(label) => shapes.keep(&having(label)),
            Selector::Lacks(label) => shapes.drop_all(&having(label)),
        }
    }
}

fn forget<K, Q>(index: &mut HashMap<K, Bits>, key: &Q, shape: u32)
where
    K: std::hash::Hash + Eq + std::borrow::Borrow<Q>,
    Q: std::hash::Hash + Eq + ?Sized,
{
    if let Some(bits) = index.get_mut(key) {
        bits.clear(shape);
        if bits.is_empty() {
            index.remove(key);
        }
    }
}
