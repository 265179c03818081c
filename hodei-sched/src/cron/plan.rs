//! Which times fire now: pure, told the time.

use hodei_core::Timestamp;

use super::rule::{CronRule, Misfire};
use super::times::Times;

/// What a schedule asks for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The times to fire, in their order.
    pub(super) fire: Vec<Timestamp>,
    /// When to look again, if ever.
    pub(super) next: Option<Timestamp>,
}

/// Decides over the times after `after` that have come by now.
///
/// Times fire in their order, so one that its jitter holds back holds back those after it.
pub(super) fn plan(rule: &CronRule, times: &Times, schedule: &str, after: Timestamp, now: Timestamp) -> Plan {
    let jittered = |at: Timestamp| at.saturating_add(rule.delay(schedule, at));
    let Some(first) = times.next_after(after) else { return Plan::default() };
    if first > now {
        return Plan { fire: Vec::new(), next: Some(jittered(first)) };
    }
    // Each is due when its own jitter is over and that of those before it: one that waits behind another is not missed.
    let just_before = Timestamp::from_micros(after.as_micros().saturating_sub(1));
    let fired = times.next_after(just_before) == Some(after);
    let mut latest = if fired { jittered(after) } else { after };
    let mut come: Vec<(Timestamp, Timestamp)> = times
        .latest(after, now, usize::from(CronRule::FIRES_MAX))
        .into_iter()
        .map(|at| {
            latest = latest.max(jittered(at));
            (at, latest)
        })
        .collect();
    let missed = come.partition_point(|(_, due)| due.saturating_add(rule.patience()) < now);
    let kept = match rule.misses() {
        Misfire::Skip => 0,
        Misfire::FireOnce => 1,
        Misfire::CatchUp { at_most } => usize::from(at_most),
    };
    come.drain(..missed.saturating_sub(kept));
    let ripe = come.partition_point(|(_, due)| *due <= now);
    let next = come.get(ripe).map(|(_, due)| *due).or_else(|| times.next_after(now).map(jittered));
    Plan { fire: come.into_iter().take(ripe).map(|(at, _)| at).collect(), next }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn minute(n: i64) -> Timestamp {
        Timestamp::from_micros(n * MINUTE)
    }

    fn minutes(times: &[Timestamp]) -> Vec<i64> {
        times.iter().map(|at| at.as_micros() / MINUTE).collect()
    }

    fn minutely() -> CronRule {
        CronRule::new("* * * * *").grace(Duration::from_secs(90))
    }

    fn decide(rule: &CronRule, after: i64, now: Timestamp) -> (Vec<i64>, Option<Timestamp>) {
        let plan = plan(rule, &rule.compile().unwrap(), "it", minute(after), now);
        (minutes(&plan.fire), plan.next)
    }

    #[test]
    fn a_time_fires_when_it_has_come() {
        let just_before = Timestamp::from_micros(6 * MINUTE - 1);
        assert_eq!(decide(&minutely(), 5, just_before), (vec![], Some(minute(6))));
        assert_eq!(decide(&minutely(), 5, minute(6)), (vec![6], Some(minute(7))));
        assert_eq!(decide(&minutely(), 6, minute(6)), (vec![], Some(minute(7))), "it fired");
    }

    #[test]
    fn what_was_missed_goes_as_the_rule_says() {
        // At minute 20 and a grace of 90 s: 19 and 20 are not missed, 6 to 18 are.
        for (misfire, expected) in [
            (Misfire::Skip, vec![19, 20]),
            (Misfire::FireOnce, vec![18, 19, 20]),
            (Misfire::CatchUp { at_most: 3 }, vec![16, 17, 18, 19, 20]),
            (Misfire::CatchUp { at_most: 1_000 }, (6..=20).collect()),
        ] {
            assert_eq!(decide(&minutely().misfire(misfire), 5, minute(20)), (expected, Some(minute(21))));
        }
    }

    #[test]
    fn a_leap_of_the_clock_catches_up_no_further_than_its_cap() {
        let years_later = minute(20 * 366 * 24 * 60);
        let (fired, _) = decide(&minutely().misfire(Misfire::CatchUp { at_most: 1_000 }), 5, years_later);
        assert_eq!((fired.len(), fired.last().copied()), (1_000, Some(20 * 366 * 24 * 60)));
        let (fired, _) = decide(&minutely().misfire(Misfire::Skip), 5, years_later);
        assert_eq!(fired.len(), 2);
    }

    #[test]
    fn a_clock_that_was_set_back_fires_nothing_twice() {
        assert_eq!(decide(&minutely(), 100, minute(40)), (vec![], Some(minute(101))));
    }

    #[test]
    fn jitter_delays_and_keeps_the_order() {
        let rule =
            CronRule::new("* * * * *").jitter(Duration::from_secs(600)).grace(Duration::from_secs(3_600));
        let times = rule.compile().unwrap();
        let (mut after, mut now, mut fired) = (minute(0), minute(0), Vec::new());
        while fired.len() < 500 {
            let plan = plan(&rule, &times, "it", after, now);
            for at in &plan.fire {
                let late = now.saturating_since(*at);
                assert!(late >= rule.delay("it", *at), "not before its jitter");
                assert!(late <= Duration::from_secs(600), "{late:?} late");
                after = *at;
            }
            fired.extend(minutes(&plan.fire));
            now = plan.next.unwrap();
        }
        assert!((1..).zip(&fired).all(|(n, minute)| n == *minute), "each minute once, in order");
    }

    /// Under the rule's own grace, as a node that runs all the time looks.
    #[test]
    fn jitter_far_beyond_the_period_and_the_grace_loses_nothing() {
        for jitter in [60, 300, 600, 3_600, 16 * 3_600] {
            for misfire in [Misfire::Skip, Misfire::FireOnce] {
                let rule = CronRule::new("* * * * *").jitter(Duration::from_secs(jitter)).misfire(misfire);
                let times = rule.compile().unwrap();
                let (mut after, mut now, mut fired) = (minute(0), minute(0), Vec::new());
                while fired.len() < 500 {
                    let plan = plan(&rule, &times, "it", after, now);
                    after = plan.fire.last().copied().unwrap_or(after);
                    fired.extend(minutes(&plan.fire));
                    now = now.saturating_add(Duration::from_secs(2)).max(plan.next.unwrap());
                }
                assert!((1..).zip(&fired).all(|(n, minute)| n == *minute), "{jitter} s: each minute once");
            }
        }
    }

    #[test]
    fn a_rule_that_fires_no_more_is_not_looked_at_again() {
        let rule = CronRule::new("0 0 0 1 1 * 1970-1971");
        assert_eq!(decide(&rule, 3 * 366 * 24 * 60, minute(4 * 366 * 24 * 60)), (vec![], None));
    }
}
