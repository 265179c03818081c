//! Jobs that overtake the head because they end in time.

use std::collections::BTreeMap;
use std::time::Duration;

use hodei_core::JobId;
use hodei_core::job::{JobSpecBuilder, Priority, Resources, Runs};
use proptest::prelude::*;

use super::world::*;

fn needs(cpu: u64) -> JobSpecBuilder {
    command().resources(Resources::none().cpu_millis(cpu))
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A worker of four CPUs whose jobs take as long as their limit says.
struct Site {
    world: World,
    agent: Agent,
    passed: u64,
    began: BTreeMap<JobId, u64>,
}

impl Site {
    fn new() -> Self {
        let capacity = Resources::none().cpu_millis(4);
        let agent = Agent::with("w", 16, capacity, vec![Runs::Command]);
        let mut site = Self { world: World::new(), agent, passed: 0, began: BTreeMap::new() };
        site.look();
        site
    }

    fn submit(&mut self, spec: JobSpecBuilder) -> JobId {
        let job = self.world.submit(spec, 1)[0];
        self.look();
        job
    }

    fn look(&mut self) {
        self.world.settle(&mut self.agent);
        for job in self.agent.jobs() {
            self.began.entry(job).or_insert(self.passed);
        }
    }

    fn runs(&self, job: JobId) -> bool {
        self.began.contains_key(&job)
    }

    /// Lets a second pass, and ends what has run for as long as it may; what has no limit runs on.
    fn second(&mut self) {
        self.world.pass(seconds(1));
        self.passed += 1;
        for job in self.agent.jobs() {
            let limit = self.world.job(job).spec.timeout().map(|limit| limit.as_secs());
            if limit.is_some_and(|limit| self.began[&job] + limit <= self.passed) {
                self.agent.report(job, success());
            }
        }
        self.look();
    }
}

#[test]
fn a_job_that_ends_in_time_overtakes_the_head_and_no_other_does() {
    let mut site = Site::new();
    site.submit(needs(2).timeout(seconds(10)));
    site.submit(needs(2).timeout(seconds(100)));
    let head = site.submit(needs(4).priority(Priority::MAX));
    (0..11).for_each(|_| site.second());
    let unknown = site.submit(needs(1).queue("unknown"));
    let long = site.submit(needs(1).queue("long").timeout(seconds(90)));
    let short = site.submit(needs(1).queue("short").timeout(seconds(89)));
    assert_eq!([head, unknown, long, short].map(|job| site.runs(job)), [false, false, false, true]);
    (0..88).for_each(|_| site.second());
    assert!(!site.runs(head));
    site.second();
    assert!(site.runs(head), "what it waited for has ended, and so has who overtook it");
}

#[test]
fn nobody_overtakes_a_head_that_waits_for_something_without_an_end() {
    let mut site = Site::new();
    site.submit(needs(2).timeout(seconds(10)));
    site.submit(needs(2));
    site.submit(needs(4).priority(Priority::MAX));
    (0..11).for_each(|_| site.second());
    let short = site.submit(needs(1).timeout(seconds(1)));
    assert!(!site.runs(short));
}

#[test]
fn what_such_runs_took_before_is_known_of_the_next_one() {
    let mut site = Site::new();
    for _ in 0..8 {
        let job = site.submit(needs(1).name("usual"));
        (0..3).for_each(|_| site.second());
        site.agent.report(job, success());
        site.look();
    }
    site.submit(needs(2).timeout(seconds(10)));
    site.submit(needs(2).timeout(seconds(100)));
    site.submit(needs(4).priority(Priority::MAX));
    (0..11).for_each(|_| site.second());
    let never_seen = site.submit(needs(1).queue("other").name("never-seen"));
    let usual = site.submit(needs(1).name("usual"));
    assert_eq!((site.runs(never_seen), site.runs(usual)), (false, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn the_head_begins_no_later_than_it_would_without_the_others(
        first in prop::collection::vec((1_u64..4, 1_u64..30), 1..6),
        wanted in 1_u64..=4,
        others in prop::collection::vec(prop::option::of((1_u64..4, 1_u64..40, 0_u8..3)), 40),
    ) {
        let mut site = Site::new();
        let mut free = 4;
        let mut ends: Vec<(u64, u64)> = Vec::new();
        for (cpu, lasts) in first {
            if cpu <= free {
                free -= cpu;
                site.submit(needs(cpu).timeout(seconds(lasts)));
                ends.push((lasts, cpu));
            }
        }
        let head = site.submit(needs(wanted).priority(Priority::MAX));
        // As soon as enough of those who run have ended.
        ends.sort_unstable();
        let mut start = 0;
        for (at, cpu) in ends {
            if free < wanted {
                free += cpu;
                start = at;
            }
        }
        for other in others {
            if let Some((cpu, lasts, queue)) = other {
                site.submit(needs(cpu).timeout(seconds(lasts)).queue(format!("q{queue}")));
            }
            if site.passed >= start {
                break;
            }
            site.second();
        }
        prop_assert!(site.runs(head), "it should have begun after {start} s");
        prop_assert!(site.began[&head] <= start);
    }
}
