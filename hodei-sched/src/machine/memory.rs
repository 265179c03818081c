//! Who gets more memory than it asks for, because less was not enough.
//!
//! A run that ran out of memory says in its failure how much it had, and the store keeps that failure: so its next run asks
//! for twice as much on whichever node, also after a restart. What runs of its kind have needed is remembered beside that,
//! for the next jobs of the kind, in a table that a restart may forget.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hodei_core::Name;
use hodei_core::gateway::News;
use hodei_core::job::{FailureClass, Job, JobSpec, Outcome, Payload, Request, RequestClass, Resources};

use super::kinds::{KINDS_MAX, Kinds};
use super::scheduler::Scheduler;
use crate::queue::ClassId;

/// So many runs of a kind are remembered, the last ones: what none of them needed is not asked for any more.
const RUNS: usize = 64;

/// What the last runs of a kind have needed, in bytes; 0 of those that had enough with what they asked for.
#[derive(Debug, Default)]
struct Needs {
    runs: VecDeque<u64>,
    most: u64,
}

impl Needs {
    fn note(&mut self, bytes: u64) {
        if self.runs.len() == RUNS {
            self.runs.pop_front();
        }
        self.runs.push_back(bytes);
        self.most = self.runs.iter().copied().max().unwrap_or(0);
    }
}

/// What a command is called that nobody has given a name.
const NAMELESS: &str = "command";

/// What is known of the memory that runs need.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The kinds of which a run needed more than it asked for.
    kinds: Kinds<Needs>,
    /// What the jobs wanted at most that were claimed last from a lane, where that was more than they ask for.
    lanes: HashMap<(Name, RequestClass), Expected>,
    /// How many claims were taken in.
    claim: u64,
    /// What the jobs of this claim ask of which it was not known that they want so much.
    larger: Vec<ClassId>,
}

/// What the jobs of a lane wanted that were claimed last.
#[derive(Clone, Copy, Debug)]
struct Expected {
    wants: u64,
    /// In which claim they came.
    claim: u64,
}

impl Memory {
    /// Notes how a run ended for which so much had been set aside.
    pub(super) fn ended(&mut self, spec: &JobSpec, had: u64, news: &News) {
        let asked = spec.resources().memory;
        let News::Ended(finish) = news else { return };
        // Commands without a name are of no kind: they have nothing in common.
        let nameless = matches!(spec.payload(), Payload::Command(_)) && spec.name().as_str() == NAMELESS;
        if asked == 0 || nameless {
            return;
        }
        let needed = match &finish.outcome {
            Outcome::Failed(failure) if failure.class == FailureClass::OutOfMemory => {
                finish.memory.unwrap_or(0).max(had.saturating_mul(2))
            }
            // Where nobody measured it, less than it had may not have been enough.
            Outcome::Succeeded => finish.memory.unwrap_or(if had > asked { had } else { 0 }),
            Outcome::Failed(_) | Outcome::Cancelled => return,
        };
        if needed > asked || self.kinds.get(spec).is_some() {
            self.kinds.note(spec, |needs| needs.note(needed));
        }
    }

    /// What runs of a job's kind have needed at most, as far as that is remembered.
    fn needed(&self, spec: &JobSpec) -> u64 {
        self.kinds.get(spec).map_or(0, |needs| needs.most)
    }

    /// The jobs of another claim come now.
    pub(super) fn begins_claim(&mut self) {
        self.claim += 1;
    }

    /// Notes what a claimed job wants, if that is more than it asks for: the next ones of its lane will mostly want as much as the
    /// largest of this claim. Returns whether it wants more than was expected of its lane.
    fn claimed(&mut self, spec: &JobSpec, wants: Option<u64>) -> bool {
        if wants.is_none() && self.lanes.is_empty() {
            return false;
        }
        let lane = (spec.queue().clone(), spec.class());
        let known = self.lanes.get(&lane);
        let expected = known.map_or(0, |known| known.wants);
        let same = known.filter(|known| known.claim == self.claim).map_or(0, |known| known.wants);
        let most = wants.unwrap_or(0).max(same);
        if most == 0 {
            self.lanes.remove(&lane);
            return false;
        }
        if self.lanes.len() >= KINDS_MAX && !self.lanes.contains_key(&lane) {
            // It only spares claims that find no room; the next claim of each lane tells it again.
            self.lanes.clear();
        }
        self.lanes.insert(lane, Expected { wants: most, claim: self.claim });
        most > expected
    }

    /// A job of a class wants more than was known when it was claimed.
    pub(super) fn is_larger(&mut self, class: ClassId) {
        self.larger.push(class);
    }

    /// Takes the classes of which that is true.
    pub(super) fn take_larger(&mut self) -> Vec<ClassId> {
        std::mem::take(&mut self.larger)
    }
}

/// The smallest class of memory that is enough: what was asked for, doubled as often as it takes, and no more than so many
/// times as much.
fn grown(asked: u64, needed: u64, growth: u32) -> u64 {
    let most = asked.saturating_mul(growth.into()).clamp(asked, Resources::MAX.max(asked));
    let mut class = asked;
    while class < needed && class < most {
        class = class.saturating_mul(2);
    }
    class.min(most)
}

/// What a job asks for in the place of what its spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grown {
    pub(super) request: Request,
    /// The memory that it should have, in bytes. It asks for less where no worker has as much.
    pub(super) wants: u64,
}

impl Scheduler {
    /// What a job asks for where that is more than its spec says, or should be.
    pub(super) fn grown(&self, job: &Job) -> Option<Grown> {
        let (spec, growth) = (&job.spec, self.config.memory_growth);
        let asked = spec.resources().memory;
        if asked == 0 || (job.settled.is_none() && self.memory.kinds.is_empty()) {
            return None;
        }
        let failed = job.settled.as_deref().and_then(|settled| match &settled.outcome {
            // What ended otherwise had as much because less had not been enough.
            Outcome::Failed(failure) if failure.class != FailureClass::OutOfMemory => failure.memory(),
            Outcome::Failed(failure) => failure.memory().map(|had| had.saturating_mul(2)),
            Outcome::Succeeded | Outcome::Cancelled => None,
        });
        let needed = failed.unwrap_or(0).max(self.memory.needed(spec));
        let wants = grown(asked, needed, growth);
        (wants > asked).then(|| Grown { request: self.within(spec.request(), spec.queue(), wants), wants })
    }

    /// As much of the memory that is wanted as any worker has that could run it.
    fn within(&self, mut request: Request, queue: &Name, wants: u64) -> Request {
        let rule = self.rules.get(queue).copied().unwrap_or(0);
        let most = self.fleet.most_memory(&request, rule).unwrap_or(wants);
        request.resources.memory = wants.min(most).max(request.resources.memory);
        request
    }

    /// As [`Scheduler::grown`], of a job that has just been claimed, and whether it wants more than was expected of its lane.
    pub(super) fn grown_claim(&mut self, job: &Job) -> (Option<Grown>, bool) {
        let grown = self.grown(job);
        let is_news = self.memory.claimed(&job.spec, grown.as_ref().map(|grown| grown.wants));
        (grown, is_news)
    }

    /// What the jobs of a lane are expected to ask for, where that is more than they say.
    pub(super) fn grown_lane(
        &self,
        queue: &Name,
        class: RequestClass,
        request: &Arc<Request>,
    ) -> Option<Request> {
        if self.memory.lanes.is_empty() {
            return None;
        }
        let wants = self.memory.lanes.get(&(queue.clone(), class))?.wants;
        Some(self.within(Request::clone(request), queue, wants))
    }
}

#[cfg(test)]
mod tests {
    use hodei_core::job::{Failure, Finish, Output};

    use super::*;

    fn spec(name: &str, memory: u64) -> JobSpec {
        let asks = Resources::none().memory(memory);
        JobSpec::command(["true"]).name(name).resources(asks).build().expect("a valid spec")
    }

    fn out_of_memory() -> News {
        News::Ended(Box::new(Finish::failed(Failure::new(FailureClass::OutOfMemory, "no"))))
    }

    fn good(memory: Option<u64>) -> News {
        News::Ended(Box::new(Finish { memory, ..Finish::succeeded(Output::none()) }))
    }

    #[test]
    fn classes_are_doubled_up_to_a_bound() {
        for (asked, needed, growth, expected) in [
            (100, 0, 16, 100),
            (100, 100, 16, 100),
            (100, 101, 16, 200),
            (100, 200, 16, 200),
            (100, 201, 16, 400),
            (100, u64::MAX, 16, 1_600),
            (100, 1_000, 3, 300),
            (100, 1_000, 1, 100),
            (100, 1_000, 0, 100),
            (Resources::MAX, u64::MAX, 16, Resources::MAX),
            (1, u64::MAX, u32::MAX, u32::MAX.into()),
        ] {
            assert_eq!(grown(asked, needed, growth), expected, "{asked} {needed} {growth}");
        }
    }

    #[test]
    fn what_a_kind_needed_is_known_until_its_last_runs_needed_less() {
        let (mut memory, of) = (Memory::default(), spec("a", 100));
        memory.ended(&of, 100, &good(Some(90)));
        assert_eq!(memory.needed(&of), 0, "nothing to remember");
        memory.ended(&of, 100, &out_of_memory());
        assert_eq!((memory.needed(&of), memory.needed(&spec("b", 100))), (200, 0));
        memory.ended(&of, 200, &good(None));
        for _ in 0..RUNS - 1 {
            assert_eq!(memory.needed(&of), 200);
            memory.ended(&of, 200, &good(Some(50)));
        }
        memory.ended(&of, 200, &good(Some(50)));
        assert_eq!(memory.needed(&of), 50, "the one that nobody measured is forgotten too");
        memory.ended(&of, 100, &good(Some(150)));
        assert_eq!(memory.needed(&of), 150, "it was seen to have more than it asked for");
    }

    #[test]
    fn a_job_that_asks_for_no_memory_is_never_given_any() {
        let (mut memory, of) = (Memory::default(), spec("a", 0));
        memory.ended(&of, 0, &out_of_memory());
        assert!(memory.kinds.is_empty());
    }

    #[test]
    fn the_lanes_that_are_remembered_are_bounded() {
        let mut memory = Memory::default();
        for n in 0..3_000 {
            let of = spec("a", 100 + n);
            memory.ended(&of, 100 + n, &out_of_memory());
            memory.claimed(&of, Some(u64::MAX));
            assert!((1..=KINDS_MAX).contains(&memory.lanes.len()));
        }
    }
}
