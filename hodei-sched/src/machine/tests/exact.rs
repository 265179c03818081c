//! Priority is exact as jobs are placed: nothing of a higher level that could begin is passed over.

use std::collections::BTreeMap;
use std::time::Duration;

use hodei_core::job::{JobSpecBuilder, Priority, Resources, Runs};
use hodei_core::{JobId, Timestamp};
use proptest::prelude::*;

use super::world::{Agent, World, command, success};
use crate::machine::SchedulerConfig;

/// A store that answers at once is looked at as often: for so long what was claimed before goes on beginning.
const BOUND: Duration = Duration::from_millis(100);

/// What is asked for: nothing, or something of which there is plenty, or something that nobody has.
fn asking(kind: u8) -> JobSpecBuilder {
    match kind {
        0 => command(),
        1 => command().resources(Resources::none().memory(1)),
        2 => command().queue("other").limited_by("licence"),
        _ => command().resources(Resources::none().gpus(1)),
    }
}

fn is_placeable(kind: u8) -> bool {
    kind < 3
}

/// What happens between two looks at who has begun.
#[derive(Clone, Debug)]
struct Turn {
    /// Kind, level and number of the jobs that come.
    come: Vec<(u8, u8, usize)>,
    passes: Duration,
    end: usize,
}

fn turn() -> impl Strategy<Value = Turn> {
    let come = prop::collection::vec((0_u8..4, 0_u8..64, 1_usize..6), 0..3);
    (come, 0_u64..80, 0_usize..5).prop_map(|(come, millis, end)| Turn {
        come,
        passes: Duration::from_millis(millis),
        end,
    })
}

struct Shop {
    world: World,
    agent: Agent,
    /// The level of each job that could begin and has not, and when it was acknowledged.
    waits: BTreeMap<JobId, (u8, Timestamp)>,
}

impl Shop {
    fn open(slots: u32) -> Self {
        let config = SchedulerConfig { ageing: None, ..SchedulerConfig::default() };
        let agent = Agent::with("w", slots, Resources::none().memory(1 << 30), vec![Runs::Command]);
        Self { world: World::with(config), agent, waits: BTreeMap::new() }
    }

    fn come(&mut self, (kind, level, n): (u8, u8, usize)) {
        let spec = asking(kind).priority(Priority::new(level).expect("a level"));
        let acknowledged = self.world.clock_now();
        for job in self.world.submit(spec, n) {
            if is_placeable(kind) {
                self.waits.insert(job, (level, acknowledged));
            }
        }
    }

    /// Lets time pass as a driver does: it comes back when the machine asks for it.
    fn pass(&mut self, time: Duration) {
        let until = self.world.clock_now().saturating_add(time);
        loop {
            let wait = self.world.machine.poll_timeout().saturating_since(self.world.clock_now());
            let left = until.saturating_since(self.world.clock_now());
            self.world.pass(wait.max(Duration::from_millis(1)).min(left));
            self.hear();
            if self.world.clock_now() >= until {
                return;
            }
        }
    }

    /// Hears what has begun, in the place of what ended, and whether anything was passed over by it.
    fn hear(&mut self) {
        self.world.hear(&mut self.agent);
        self.world.settle(&mut self.agent);
        let begun: Vec<(JobId, (u8, Timestamp))> =
            self.agent.jobs().iter().filter_map(|job| self.waits.remove_entry(job)).collect();
        let Some(lowest) = begun.iter().map(|(_, (level, _))| *level).min() else { return };
        let now = self.world.clock_now();
        let passed =
            |(level, since): &(u8, Timestamp)| *level > lowest && now.saturating_since(*since) > BOUND;
        let passed: Vec<_> = self.waits.values().filter(|waits| passed(waits)).collect();
        assert!(passed.is_empty(), "one of level {lowest} began at {now:?} before {passed:?}");
    }

    fn end(&mut self, n: usize) {
        for job in self.agent.jobs().into_iter().take(n) {
            self.agent.report(job, success());
        }
        self.hear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_more_urgent_is_passed_over_for_longer_than_the_store_is_not_looked_at(
        slots in 1_u32..10,
        backlog in prop::collection::vec((0_u8..4, 0_u8..64, 1_usize..60), 1..5),
        turns in prop::collection::vec(turn(), 1..60),
    ) {
        let mut shop = Shop::open(slots);
        backlog.into_iter().for_each(|jobs| shop.come(jobs));
        shop.hear();
        for turn in turns {
            turn.come.into_iter().for_each(|jobs| shop.come(jobs));
            shop.pass(turn.passes);
            shop.end(turn.end);
        }
        // Everything that can begins in the end, by level.
        while !shop.agent.jobs().is_empty() {
            shop.pass(Duration::from_millis(10));
            shop.end(usize::MAX);
        }
        prop_assert!(shop.waits.is_empty(), "{:?} never began", shop.waits);
    }
}
