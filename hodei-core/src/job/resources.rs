//! What a job needs and a worker has, as a vector.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::share::Share;
use crate::id::Name;

/// The name under which it is kept on how many workers at once all of it is needed.
static WORKERS: LazyLock<Name> = LazyLock::new(|| Name::literal("hodei.workers"));
/// The name under which it is kept how many tokens of its rates a job takes.
static TOKENS: LazyLock<Name> = LazyLock::new(|| Name::literal("hodei.tokens"));
/// The name under which it is kept whom a job has its turns with.
static SHARE: LazyLock<Name> = LazyLock::new(|| Name::literal("hodei.share"));

/// An amount of each resource. Addition never wraps and subtraction never goes below zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Memory, in bytes.
    pub memory: u64,
    /// Whole GPUs.
    pub gpus: u32,
    /// Amounts of resources that the application names, sorted by name, each at most once and never zero.
    custom: Box<[(Name, u64)]>,
}

impl Resources {
    /// The most of one resource that may be asked for or offered.
    pub const MAX: u64 = 1 << 50;

    /// The most workers that a job may ask for at once.
    pub const WORKERS_MAX: u32 = 1_024;

    /// The most tokens that a job may take.
    pub const TOKENS_MAX: u32 = 1_000;

    /// Nothing of anything.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Sets the CPU, in thousandths.
    #[must_use]
    pub fn cpu_millis(mut self, millis: u64) -> Self {
        self.cpu_millis = millis;
        self
    }

    /// Sets the memory, in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Sets the number of GPUs.
    #[must_use]
    pub fn gpus(mut self, gpus: u32) -> Self {
        self.gpus = gpus;
        self
    }

    /// Sets the amount of a resource that the application names; zero takes it out.
    #[must_use]
    pub fn custom(mut self, name: Name, amount: u64) -> Self {
        let mut list = std::mem::take(&mut self.custom).into_vec();
        list.retain(|(n, _)| *n != name);
        if amount > 0 {
            list.reserve_exact(1);
            list.push((name, amount));
            list.sort();
        }
        self.custom = list.into_boxed_slice();
        self
    }

    /// Asks for all of it on so many workers at once, all or nothing: a gang. The job is one job: it runs on one of them,
    /// with one slot and its resources set aside on each, and knows the others, on which it may start what it likes by
    /// itself. All of them belong to one dispatcher of a node. When one of the others is lost, the run is stopped with its
    /// agent's grace and comes back at no cost. A gang stops nobody's work to make room for itself.
    ///
    /// One, and zero, are one worker. Kept as the resource `hodei.workers`.
    #[must_use]
    pub fn workers(self, workers: u32) -> Self {
        let amount = if workers > 1 { workers } else { 0 };
        self.custom(WORKERS.clone(), amount.into())
    }

    /// Returns on how many workers at once it is asked for.
    #[must_use]
    pub fn worker_count(&self) -> u32 {
        if self.custom.is_empty() {
            return 1;
        }
        u32::try_from(self.amount(&WORKERS)).unwrap_or(u32::MAX).max(1)
    }

    /// Takes so many tokens of each [`Rate`](crate::store::Rate) that it is under when it is claimed, in the place of one. No
    /// worker needs to have them.
    ///
    /// Zero is one. Kept as the resource `hodei.tokens`.
    #[must_use]
    pub fn tokens(self, tokens: u32) -> Self {
        let amount = if tokens > 1 { tokens } else { 0 };
        self.custom(TOKENS.clone(), amount.into())
    }

    /// Returns how many tokens of a rate it takes.
    #[must_use]
    pub fn token_count(&self) -> u32 {
        if self.custom.is_empty() {
            return 1;
        }
        u32::try_from(self.amount(&TOKENS)).unwrap_or(u32::MAX).max(1)
    }

    /// Says whom the job has its turns with; [`Share::NONE`] takes out what was said before. Kept as the resource
    /// `hodei.share`.
    #[must_use]
    pub fn share(self, share: Share) -> Self {
        self.custom(SHARE.clone(), share.code())
    }

    /// Returns whom the job has its turns with.
    #[must_use]
    pub fn turns_with(&self) -> Share {
        if self.custom.is_empty() { Share::NONE } else { Share::from_code(self.amount(&SHARE)) }
    }

    /// Returns whom the job has its turns with where it asks for nothing else.
    pub(super) fn share_alone(&self) -> Option<Share> {
        let fixed = self.cpu_millis == 0 && self.memory == 0 && self.gpus == 0;
        let share = self.turns_with();
        let custom = self.custom.iter().all(|(name, n)| *name == *SHARE && *n == share.code());
        (fixed && custom).then_some(share)
    }

    /// As [`Resources::customs`], of what each worker must have.
    pub fn named(&self) -> impl Iterator<Item = (&Name, u64)> + '_ {
        let told = [&*WORKERS, &*TOKENS, &*SHARE];
        self.customs().filter(move |(name, _)| !told.contains(name) && !Self::is_place(name))
    }

    /// Returns what of it a worker must have, and nothing of what else is kept with it.
    #[must_use]
    pub fn of_worker(&self) -> Self {
        let custom = if self.custom.is_empty() { Vec::new() } else { self.named().collect() };
        let custom = custom.into_iter().map(|(name, amount)| (name.clone(), amount)).collect();
        Self { custom, ..*self }
    }

    /// Goes through the resources that the application names, in the order of their names.
    pub fn customs(&self) -> impl ExactSizeIterator<Item = (&Name, u64)> + '_ {
        self.custom.iter().map(|(name, amount)| (name, *amount))
    }

    /// Says whether all of it is there in `available`, which is one worker's.
    #[must_use]
    pub fn fits(&self, available: &Self) -> bool {
        self.cpu_millis <= available.cpu_millis
            && self.memory <= available.memory
            && self.gpus <= available.gpus
            && self.named().all(|(name, amount)| amount <= available.amount(name))
    }

    /// Returns the first resource of which `available` has too little, with the amounts needed and there.
    #[must_use]
    pub fn missing(&self, available: &Self) -> Option<(String, u64, u64)> {
        let fixed = [
            ("cpu_millis", self.cpu_millis, available.cpu_millis),
            ("memory", self.memory, available.memory),
            ("gpus", u64::from(self.gpus), u64::from(available.gpus)),
        ];
        let custom = self.named().map(|(name, amount)| (name.as_str(), amount, available.amount(name)));
        fixed
            .into_iter()
            .chain(custom)
            .find(|(_, need, have)| need > have)
            .map(|(name, need, have)| (name.to_owned(), need, have))
    }

    /// Adds, or returns `None` where a sum cannot be told.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let mut sum = Self {
            cpu_millis: self.cpu_millis.checked_add(other.cpu_millis)?,
            memory: self.memory.checked_add(other.memory)?,
            gpus: self.gpus.checked_add(other.gpus)?,
            custom: Box::default(),
        };
        if self.custom.is_empty() && other.custom.is_empty() {
            return Some(sum);
        }
        sum.custom = self.custom.clone();
        for (name, amount) in &other.custom {
            let total = self.amount(name).checked_add(*amount)?;
            sum = sum.custom(name.clone(), total);
        }
        Some(sum)
    }

    /// Subtracts, or returns `None` where less than nothing would be left.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        let mut rest = Self {
            cpu_millis: self.cpu_millis.checked_sub(other.cpu_millis)?,
            memory: self.memory.checked_sub(other.memory)?,
            gpus: self.gpus.checked_sub(other.gpus)?,
            custom: Box::default(),
        };
        if other.custom.is_empty() {
            rest.custom = self.custom.clone();
            return Some(rest);
        }
        rest.custom = self.custom.clone();
        for (name, amount) in &other.custom {
            let left = self.amount(name).checked_sub(*amount)?;
            rest = rest.custom(name.clone(), left);
        }
        Some(rest)
    }

    fn amount(&self, name: &Name) -> u64 {
        self.custom.iter().find(|(n, _)| n == name).map_or(0, |(_, amount)| *amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Resources {
        Resources::none().cpu_millis(1_500).memory(1 << 30).gpus(1).custom(Name::literal("licence"), 2)
    }

    #[test]
    fn what_was_taken_can_be_given_back() {
        let all = sample().checked_add(&sample()).unwrap();
        assert_eq!(all.checked_sub(&sample()), Some(sample()));
        assert_eq!(sample().checked_sub(&all), None);
        assert_eq!(sample().checked_sub(&sample()), Some(Resources::none()));
    }

    #[test]
    fn a_gang_needs_on_each_worker_what_one_job_needs() {
        let gang = sample().workers(4);
        assert_eq!((gang.worker_count(), gang.fits(&sample()), gang.missing(&sample())), (4, true, None));
        assert_eq!(gang.clone().workers(1), sample());
        assert_eq!((gang.customs().len(), gang.named().count(), sample().worker_count()), (2, 1, 1));
    }

    #[test]
    fn no_worker_needs_to_have_tokens() {
        let dear = sample().tokens(7);
        assert_eq!((dear.token_count(), dear.fits(&sample()), dear.missing(&sample())), (7, true, None));
        assert_eq!((dear.clone().tokens(1), dear.named().count(), sample().token_count()), (sample(), 1, 1));
    }

    #[test]
    fn whom_a_job_has_its_turns_with_is_nothing_that_a_worker_has() {
        let share = Share::from_code(7).weighing(3);
        let step = sample().share(share);
        assert_eq!((step.turns_with(), step.named().count(), step.missing(&sample())), (share, 1, None));
        assert_eq!((sample().turns_with(), step.clone().share(Share::NONE)), (Share::NONE, sample()));
        let all = step.workers(3).tokens(2);
        assert_eq!((all.of_worker(), sample().of_worker()), (sample(), sample()));
        let alone = |resources: Resources| resources.share_alone();
        assert_eq!(alone(Resources::none()), Some(Share::NONE));
        assert_eq!(alone(Resources::none().share(share)), Some(share));
        assert_eq!(alone(sample().share(share)), None);
    }

    #[test]
    fn sums_do_not_wrap() {
        let max = Resources::none().memory(u64::MAX);
        assert_eq!(max.checked_add(&sample()), None);
    }

    #[test]
    fn fitting_looks_at_every_resource() {
        for (available, missing) in [
            (sample(), None),
            (sample().cpu_millis(1_499), Some("cpu_millis")),
            (sample().memory(0), Some("memory")),
            (sample().gpus(0), Some("gpus")),
            (sample().custom(Name::literal("licence"), 1), Some("licence")),
            (sample().custom(Name::literal("licence"), 0), Some("licence")),
        ] {
            assert_eq!(sample().fits(&available), missing.is_none());
            assert_eq!(sample().missing(&available).map(|(name, ..)| name).as_deref(), missing);
        }
    }
}
