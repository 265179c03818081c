//! Whom a job has its turns with.

use super::payload::Request;
use super::resources::Resources;
use crate::id::PipelineId;

/// The part of a queue that a job has its turns with. Within a queue of a tenant its parts take turns with each other, all of
/// the same weight, so that thousands of steps of one pipeline that are ready together do not stand in front of another
/// pipeline, nor of the jobs that are of none.
///
/// There is a bounded number of parts, as lanes are: one of the jobs that are of no pipeline, one of the steps of all pipelines
/// that have [`Share::SMALL_STEPS`] steps at most, and [`Share::SPREAD`] among which the other pipelines are spread by a hash
/// of their ids. Pipelines that come into the same part share its turns, and stand in one line.
///
/// A step has that of its pipeline from [`Pipeline`](crate::pipeline::Pipeline) or
/// [`NewJob::in_pipeline`](super::NewJob::in_pipeline), which takes no pipeline for a small one. It is a part of the job's
/// request, kept as the resource `hodei.share`, which no worker needs to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u8);

impl Share {
    /// That of the jobs of no pipeline.
    pub const NONE: Self = Self(0);
    /// That of the steps of all small pipelines.
    pub const SMALL: Self = Self(1);
    /// So many steps a small pipeline has at most: 16.
    pub const SMALL_STEPS: usize = 16;
    /// Among so many the pipelines are spread that are not small: 32.
    pub const SPREAD: u8 = 32;
    /// How many there are.
    pub const COUNT: usize = 2 + Self::SPREAD as usize;

    /// Returns that of a pipeline of so many steps.
    #[must_use]
    pub fn of_steps(pipeline: PipelineId, steps: usize) -> Self {
        if steps > Self::SMALL_STEPS { Self::of(pipeline) } else { Self::SMALL }
    }

    /// Returns that of a pipeline of which it is not known how many steps it will have. It is the same for ever.
    #[must_use]
    pub fn of(pipeline: PipelineId) -> Self {
        let [high, low] = [0, 8].map(|at| {
            let half = pipeline.as_bytes()[at..at + 8].iter();
            half.fold(0_u64, |number, byte| (number << 8) | u64::from(*byte))
        });
        // Fibonacci hashing: every bit of the id moves the uppermost ones.
        let hash = (high ^ low.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Self::spread(hash)
    }

    /// Returns the number: 0 and up, below [`Share::COUNT`].
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns the share of a number; what is too large for one is spread.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        match u8::try_from(number) {
            Ok(number) if usize::from(number) < Self::COUNT => Self(number),
            _ => Self::spread(number),
        }
    }

    /// Goes through all there are.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..2 + Self::SPREAD).map(Self)
    }

    fn spread(number: u64) -> Self {
        let at = number % u64::from(Self::SPREAD);
        Self(u8::try_from(at).map_or(Self::SMALL.0, |at| 2 + at))
    }
}

impl Request {
    /// Whom the jobs that ask for it have their turns with.
    #[must_use]
    pub fn share(&self) -> Share {
        self.resources.turns_with()
    }

    /// Returns what a worker must have and run for it, whomever such jobs have their turns with: they are the same for placement.
    #[must_use]
    pub fn without_share(&self) -> Self {
        let resources: Resources = self.resources.clone().share(Share::NONE);
        Self { resources, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Tenant;
    use crate::time::SystemClock;

    #[test]
    fn pipelines_are_spread_evenly() {
        let tenant = Tenant::default();
        for minted in [true, false] {
            let mut counts = [0_u32; Share::COUNT];
            for ticket in 0..32_000 {
                let id = match minted {
                    true => PipelineId::mint(&tenant, &SystemClock),
                    false => PipelineId::from_parts(ticket, tenant.slot(), 0),
                };
                counts[usize::from(Share::of(id).number())] += 1;
            }
            assert_eq!(counts[..2], [0, 0]);
            assert!(counts[2..].iter().all(|n| (850..1_150).contains(n)), "{counts:?}");
        }
    }

    #[test]
    fn small_pipelines_have_one_together() {
        let id = PipelineId::mint(&Tenant::default(), &SystemClock);
        assert_eq!([0, 1, 16].map(|steps| Share::of_steps(id, steps)), [Share::SMALL; 3]);
        assert_eq!([17, 100_000].map(|steps| Share::of_steps(id, steps)), [Share::of(id); 2]);
    }

    #[test]
    fn each_number_is_one_and_every_other_is_as_one_of_them() {
        assert_eq!(Share::all().count(), Share::COUNT);
        assert!(Share::all().all(|share| Share::from_number(share.number().into()) == share));
        for number in [34, 255, 256, u64::MAX] {
            assert!((2..34).contains(&Share::from_number(number).number()), "{number}");
        }
    }
}
