//! What waits behind more urgent jobs of its own lane.
//!
//! A store shows of a lane what it has at its highest level, which is all that a claim needs that takes the most urgent first. What
//! has risen by waiting is below that, so every level is asked for a few times in the time in which a job rises by one, and with
//! every look for as long as anything has risen to where the first of its lane are. Of what a level has nothing is known but since
//! when its first job waits: so one is claimed of it, and twice as many each time after that, as long as the first that is left has
//! risen as far. No job comes before a more urgent one for having others of its level behind which it came.

use std::collections::{BTreeMap, HashMap};

use hodei_core::Timestamp;
use hodei_core::job::Priority;
use hodei_core::store::{Lane, LaneHead};

use super::picks::risen;
use crate::queue::Ageing;

/// How often every level is asked for in the time in which a job rises by one.
const LOOKS: u32 = 4;
/// So many jobs of a level are claimed together at most.
const TOGETHER_MAX: u64 = 4_096;

/// How many of a level that has risen are claimed together.
#[derive(Clone, Copy, Debug)]
struct Run {
    jobs: u64,
    /// Whether they were claimed since they were shown.
    taken: bool,
}

/// What is known of that.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// When every level is asked for next, where anything is ready.
    due: Option<Timestamp>,
    /// Whether the question under way is for every level.
    asks: bool,
    /// The levels that have risen to where the first of their lane are.
    risen: BTreeMap<(Lane, Priority), Run>,
}

impl Behind {
    /// Whether it is time to look again.
    pub(super) fn is_due(&self, ageing: Option<Ageing>, now: Timestamp) -> bool {
        let ages = ageing.is_some_and(|ageing| !ageing.every.is_zero());
        ages && self.due.is_none_or(|due| due <= now)
    }

    /// The store is asked for its lanes; says whether for every level.
    pub(super) fn asks(&mut self, ageing: Option<Ageing>, now: Timestamp) -> bool {
        self.asks = !self.risen.is_empty() || self.is_due(ageing, now);
        self.asks
    }

    /// Takes what was shown apart: the first of each lane, and what has risen as far behind them.
    pub(super) fn part(
        &mut self,
        heads: Vec<LaneHead>,
        ageing: Option<Ageing>,
        now: Timestamp,
    ) -> (Vec<LaneHead>, Vec<LaneHead>) {
        let Some(ageing) = ageing.filter(|_| std::mem::take(&mut self.asks)) else {
            return (heads, Vec::new());
        };
        self.due = Some(now.saturating_add(ageing.every / LOOKS));
        let mut highest: HashMap<Lane, (Priority, Priority)> = HashMap::new();
        for LaneHead { lane, level, eligible_at, .. } in &heads {
            if highest.get(lane).is_none_or(|(highest, _)| highest < level) {
                let risen = risen(*level, *eligible_at, Some(ageing), now);
                highest.insert(lane.clone(), (*level, risen));
            }
        }
        let (first, mut behind): (Vec<_>, Vec<_>) = heads
            .into_iter()
            .partition(|head| highest.get(&head.lane).is_none_or(|(level, _)| *level == head.level));
        let before = std::mem::take(&mut self.risen);
        behind.retain_mut(|head| {
            let as_far = highest.get(&head.lane).map(|(_, risen)| *risen);
            if as_far.is_none_or(|as_far| risen(head.level, head.eligible_at, Some(ageing), now) < as_far) {
                return false;
            }
            let at = (head.lane.clone(), head.level);
            let jobs = before.get(&at).map_or(1, |run| run.jobs << u32::from(run.taken)).min(TOGETHER_MAX);
            self.risen.insert(at, Run { jobs, taken: false });
            head.depth = head.depth.min(jobs);
            true
        });
        (first, behind)
    }

    /// So many jobs of a level are asked for.
    pub(super) fn take(&mut self, lane: &Lane, level: Priority, jobs: u32) {
        // The key is made only where anything has risen.
        if !self.risen.is_empty()
            && let Some(run) = self.risen.get_mut(&(lane.clone(), level))
        {
            run.taken = u64::from(jobs) >= run.jobs;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use hodei_core::job::JobSpec;
    use hodei_core::{Name, Tenant};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const AGEING: Option<Ageing> = Some(Ageing { every: MINUTE, ceiling: Priority::MAX });

    fn level(n: u8) -> Priority {
        Priority::new(n).expect("a level")
    }

    /// A level of a lane, of which the first has waited for so many minutes at minute 100.
    fn head(at: u8, waited: u32, depth: u64) -> LaneHead {
        let spec = JobSpec::command(["true"]).build().expect("a valid spec");
        let lane = Lane { tenant: Tenant::default(), queue: Name::literal("q"), class: spec.class() };
        let eligible_at = minute(100 - waited);
        LaneHead { lane, request: Arc::new(spec.request()), level: level(at), depth, eligible_at, weight: 1 }
    }

    fn minute(n: u32) -> Timestamp {
        Timestamp::from_micros(0).saturating_add(MINUTE * n)
    }

    fn shown(behind: &mut Behind, heads: &[LaneHead]) -> Vec<(u8, u64)> {
        assert!(behind.asks(AGEING, minute(100)));
        let (first, behind) = behind.part(heads.to_vec(), AGEING, minute(100));
        assert_eq!(first, heads[..1], "the first of the lane comes as it was shown");
        behind.iter().map(|head| (head.level.level(), head.depth)).collect()
    }

    #[test]
    fn what_has_risen_to_the_first_of_its_lane_is_seen() {
        let mut behind = Behind::default();
        assert_eq!(shown(&mut behind, &[head(40, 2, 9), head(30, 11, 9), head(10, 32, 5)]), [(10, 1)]);
        assert!(behind.asks(AGEING, minute(100)), "it is looked for as long as there is any");
    }

    #[test]
    fn nothing_is_looked_for_where_nothing_has_risen() {
        let mut behind = Behind::default();
        assert_eq!(shown(&mut behind, &[head(40, 0, 9), head(30, 9, 9)]), []);
        assert!(!behind.asks(AGEING, minute(100)));
        assert!(!behind.is_due(AGEING, minute(100).saturating_add(MINUTE / 5)));
        assert!(behind.is_due(AGEING, minute(100).saturating_add(MINUTE / 4)));
        assert!(!behind.is_due(None, minute(200)), "nobody rises");
    }

    #[test]
    fn as_many_are_claimed_together_as_have_proved_to_have_risen() {
        let (mut behind, first) = (Behind::default(), head(40, 0, 9));
        for expected in [1, 2, 4, 8] {
            let risen = head(10, 50, 1_000);
            assert_eq!(shown(&mut behind, &[first.clone(), risen.clone()]), [(10, expected)]);
            assert_eq!(
                shown(&mut behind, &[first.clone(), risen.clone()]),
                [(10, expected)],
                "none was claimed"
            );
            behind.take(&risen.lane, risen.level, u32::try_from(expected).expect("few"));
        }
        assert_eq!(shown(&mut behind, &[first.clone(), head(10, 3, 1_000)]), [], "those have not");
        behind.due = None;
        assert_eq!(shown(&mut behind, &[first, head(10, 50, 1_000)]), [(10, 1)]);
    }
}
