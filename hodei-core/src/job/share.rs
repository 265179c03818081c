//! Whom a job has its turns with.

use std::cmp::Ordering;

use super::payload::Request;
use super::resources::Resources;
use crate::id::PipelineId;

/// The code of a heavier share is its weight times this, and its place.
const PLACES: u64 = 64;

const _: () = assert!(Share::COUNT as u64 <= PLACES && Share::WEIGHT_MAX <= 1 + u8::MAX as u32);

/// The part of a queue that a job has its turns with. Within a queue of a tenant its parts take turns with each other, by their
/// weights, so that thousands of steps of one pipeline that are ready together do not stand in front of another pipeline, nor
/// of the jobs that are of none, which weigh 1.
///
/// There is a bounded number of parts, as lanes are: one of the jobs that are of no pipeline, and for each weight one of the
/// steps of all pipelines that have [`Share::SMALL_STEPS`] steps at most, and [`Share::SPREAD`] among which the other pipelines
/// are spread by a hash of their ids. Pipelines that come into the same part share its turns, and stand in one line; only those
/// of the same weight do.
///
/// A step has that of its pipeline from [`Pipeline`](crate::pipeline::Pipeline) or
/// [`NewJob::in_pipeline`](super::NewJob::in_pipeline), which takes no pipeline for a small one. It is a part of the job's
/// request, kept as the resource `hodei.share`, which no worker needs to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share {
    number: u8,
    /// By how much it weighs more than 1.
    above: u8,
}

impl Share {
    /// That of the jobs of no pipeline.
    pub const NONE: Self = Self::light(0);
    /// That of the steps of all small pipelines.
    pub const SMALL: Self = Self::light(1);
    /// So many steps a small pipeline has at most: 16.
    pub const SMALL_STEPS: usize = 16;
    /// Among so many the pipelines are spread that are not small: 32.
    pub const SPREAD: u8 = 32;
    /// The most that a pipeline may weigh: 100.
    pub const WEIGHT_MAX: u32 = 100;
    /// How many there are of each weight.
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

    /// Returns that of pipelines of another weight: 1 to [`Share::WEIGHT_MAX`], to which others are brought. The jobs of no
    /// pipeline weigh 1.
    #[must_use]
    pub fn weighing(self, weight: u32) -> Self {
        let above = weight.clamp(1, Self::WEIGHT_MAX) - 1;
        let above = if self.number == Self::NONE.number { 0 } else { u8::try_from(above).unwrap_or(u8::MAX) };
        Self { above, ..self }
    }

    /// Returns what it weighs against the others of its queue: at least 1.
    #[must_use]
    pub fn weight(self) -> u32 {
        u32::from(self.above) + 1
    }

    /// Returns the number, whatever it weighs: 0 and up, below [`Share::COUNT`].
    #[must_use]
    pub const fn number(self) -> u8 {
        self.number
    }

    /// Returns the number as which requests keep it: [`Share::number`] where it weighs 1. Of a heavier one, versions that know
    /// no weights read the share of the same number.
    #[must_use]
    pub fn code(self) -> u64 {
        let number = u64::from(self.number);
        if self.above == 0 {
            return number;
        }
        let small = self.number == Self::SMALL.number;
        let place = if small { u64::from(Self::SPREAD) } else { number.saturating_sub(2) };
        u64::from(self.weight()) * PLACES + place
    }

    /// Returns the share of such a number; what is none is spread.
    #[must_use]
    pub fn from_code(code: u64) -> Self {
        if let Some(number) = u8::try_from(code).ok().filter(|number| usize::from(*number) < Self::COUNT) {
            return Self::light(number);
        }
        let (weight, place) = (u32::try_from(code / PLACES).unwrap_or(u32::MAX), code % PLACES);
        let light = match place.cmp(&u64::from(Self::SPREAD)) {
            Ordering::Less => Self::spread(place),
            Ordering::Equal => Self::SMALL,
            Ordering::Greater => return Self::spread(code),
        };
        if (2..=Self::WEIGHT_MAX).contains(&weight) { light.weighing(weight) } else { Self::spread(code) }
    }

    /// Goes through all that weigh 1.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..2 + Self::SPREAD).map(Self::light)
    }

    const fn light(number: u8) -> Self {
        Self { number, above: 0 }
    }

    fn spread(number: u64) -> Self {
        let at = number % u64::from(Self::SPREAD);
        u8::try_from(at).map_or(Self::SMALL, |at| Self::light(2 + at))
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
        assert!(Share::all().all(|share| (share.code(), Share::from_code(share.code())) == (share.number().into(), share)));
        for code in [34, 127, 161, 255, 256, 101 * 64, u64::MAX] {
            assert!((1..34).contains(&Share::from_code(code).number()), "{code}");
        }
    }

    #[test]
    fn each_weight_is_kept_and_an_older_version_reads_the_share_without_it() {
        let heavy = |weight| Share::all().map(move |share| share.weighing(weight));
        let mut codes: Vec<u64> = (1..=Share::WEIGHT_MAX).flat_map(heavy).map(Share::code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Share::COUNT * 100 - 99, "jobs of no pipeline weigh 1");
        for share in (2..=Share::WEIGHT_MAX).flat_map(heavy).filter(|share| share.number() > 0) {
            assert_eq!(Share::from_code(share.code()), share);
            let read_before = 2 + u8::try_from(share.code() % u64::from(Share::SPREAD)).unwrap();
            assert!(share.number() == read_before || share.number() == Share::SMALL.number());
        }
        let weights = [0, 1, 7, 100, 101, u32::MAX].map(|weight| Share::SMALL.weighing(weight).weight());
        assert_eq!((weights, Share::NONE.weighing(7)), ([1, 1, 7, 100, 100, 100], Share::NONE));
    }
}
