//! The times that an expression names in a zone.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::errors::CronError;
use hodei_core::{Fault, Timestamp};
use jiff::tz::TimeZone;

const SECOND: i64 = 1_000_000;
/// 2026-01-01 in UTC.
const REFERENCE: Timestamp = Timestamp::from_micros(1_767_225_600 * SECOND);
/// The first stretch of the past that is looked through.
const FIRST_STRETCH: Duration = Duration::from_secs(60);

/// An expression and a zone that were understood.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    cron: Cron,
    zone: TimeZone,
}

impl Times {
    pub(super) fn compile(expression: &str, zone: &str) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let cron = Cron::from_str(expression).map_err(|error| {
            faults.push(match error {
                CronError::EmptyPattern => Fault::new("cron", "empty"),
                other => Fault::new("cron", "invalid").detail(other.to_string()),
            });
        });
        let found = TimeZone::get(zone).map_err(|_| faults.push(Fault::new("zone", "unknown").detail(zone)));
        match (cron, found) {
            (Ok(cron), Ok(zone)) => Ok(Self { cron, zone }),
            _ => Err(faults),
        }
    }

    /// Returns the first time after another; nothing when none follows in the years that calendars are sure of.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        // Expressions name whole seconds, so the fraction of one changes nothing.
        let second = after.as_micros().div_euclid(SECOND);
        let start = jiff::Timestamp::from_second(second).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&start, false).ok()?;
        let next = Timestamp::from_micros(next.timestamp().as_microsecond());
        (next > after).then_some(next)
    }

    /// Returns the latest times after one time and not after another, at most so many, oldest first.
    ///
    /// Looks through ever longer stretches of the past until one holds enough, and through parts of it where it holds far
    /// too many: the cost is that of what is returned, and not of all the times since a schedule fired years ago.
    pub(super) fn latest(&self, after: Timestamp, until: Timestamp, most: usize) -> Vec<Timestamp> {
        let (mut short, mut long, mut stretch) = (until, None, FIRST_STRETCH);
        loop {
            let start = match long {
                None => until.saturating_sub(stretch).max(after),
                Some(long) => middle(long, short),
            };
            match self.between(start, until, most) {
                Some(found) if found.len() >= most || start == after => {
                    return found[found.len().saturating_sub(most)..].to_vec();
                }
                Some(_) => {
                    short = start;
                    stretch = stretch.saturating_mul(2);
                }
                None => long = Some(start),
            }
        }
    }

    /// Whether more times than so many lie within a stretch, counted from the first time after 2026 began.
    pub(super) fn more_within(&self, stretch: Duration, most: usize) -> bool {
        let Some(first) = self.next_after(REFERENCE).filter(|_| !stretch.is_zero()) else { return false };
        let end = first.saturating_add(stretch);
        std::iter::successors(Some(first), |last| self.next_after(*last))
            .take_while(|time| *time <= end)
            .nth(most)
            .is_some()
    }

    /// Returns the times after one time and not after another, or nothing when there are more than twice so many.
    fn between(&self, after: Timestamp, until: Timestamp, many: usize) -> Option<Vec<Timestamp>> {
        let next = std::iter::successors(self.next_after(after), |last| self.next_after(*last));
        let found: Vec<Timestamp> = next.take_while(|time| *time <= until).take(2 * many + 1).collect();
        (found.len() <= 2 * many).then_some(found)
    }
}

fn middle(a: Timestamp, b: Timestamp) -> Timestamp {
    Timestamp::from_micros(i64::midpoint(a.as_micros(), b.as_micros()))
}

#[cfg(test)]
mod tests {
    use jiff::civil::DateTime;
    use proptest::prelude::*;

    use super::*;

    /// Zones whose clocks change by an hour in either hemisphere, by half an hour, never, at midnight, and by little
    /// known rules.
    const ZONES: [&str; 10] = [
        "UTC",
        "Europe/Madrid",
        "America/New_York",
        "Australia/Lord_Howe",
        "America/Santiago",
        "Africa/Casablanca",
        "Asia/Kolkata",
        "Pacific/Chatham",
        "Asia/Beirut",
        "America/Nuuk",
    ];
    const DAY: i64 = 86_400;

    fn times(expression: &str, zone: &str) -> Times {
        Times::compile(expression, zone).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn between(times: &Times, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        std::iter::successors(times.next_after(after), |last| times.next_after(*last))
            .take_while(|time| *time <= until)
            .collect()
    }

    fn civil(time: Timestamp, zone: &TimeZone) -> DateTime {
        jiff::Timestamp::from_microsecond(time.as_micros()).unwrap().to_zoned(zone.clone()).datetime()
    }

    #[test]
    fn a_time_of_day_that_does_not_exist_fires_after_the_gap() {
        // Madrid leaps from 02:00 to 03:00 on 2026-03-29: 01:00 UTC.
        let found = between(
            &times("30 2 * * *", "Europe/Madrid"),
            at("2026-03-28T12:00:00Z"),
            at("2026-03-30T12:00:00Z"),
        );
        assert_eq!(found, [at("2026-03-29T01:00:00Z"), at("2026-03-30T00:30:00Z")]);
    }

    #[test]
    fn a_time_of_day_that_comes_twice_fires_at_its_first_coming() {
        // Madrid falls back from 03:00 to 02:00 on 2026-10-25: 01:00 UTC.
        let found = between(
            &times("30 2 * * *", "Europe/Madrid"),
            at("2026-10-24T12:00:00Z"),
            at("2026-10-26T12:00:00Z"),
        );
        assert_eq!(found, [at("2026-10-25T00:30:00Z"), at("2026-10-26T01:30:00Z")]);
    }

    #[test]
    fn steps_follow_the_clock_on_the_wall() {
        let halves = times("0,30 2 * * *", "Europe/Madrid");
        assert_eq!(between(&halves, at("2026-03-28T12:00:00Z"), at("2026-03-29T12:00:00Z")), []);
        assert_eq!(between(&halves, at("2026-10-24T12:00:00Z"), at("2026-10-25T12:00:00Z")).len(), 4);
    }

    #[test]
    fn what_never_comes_is_known() {
        let now = at("2026-11-26T00:00:00Z");
        for never in ["0 0 31 2 *", "0 0 0 1 1 * 2020"] {
            assert_eq!(times(never, "UTC").next_after(now), None, "{never}");
            assert_eq!(times(never, "UTC").latest(now, Timestamp::MAX, 10), [], "{never}");
        }
        assert_eq!(times("0 0 29 2 *", "UTC").next_after(now), Some(at("2028-02-29T00:00:00Z")));
    }

    #[test]
    fn the_ends_of_time_are_no_panic() {
        let minutely = times("* * * * *", "UTC");
        for end in [Timestamp::MAX, Timestamp::from_micros(i64::MIN), at("9999-12-30T21:00:00Z")] {
            let _ = minutely.next_after(end);
            let _ = minutely.latest(end, Timestamp::MAX, 3);
        }
    }

    #[test]
    fn a_heap_of_missed_times_long_ago_costs_only_what_is_returned() {
        let heap = times("* * * * * * 2020", "UTC");
        let found = heap.latest(at("2010-01-01T00:00:00Z"), at("2026-11-26T00:00:00Z"), 3);
        assert_eq!(found.last(), Some(&at("2020-12-31T23:59:59Z")));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_billion_missed_seconds_cost_only_what_is_returned() {
        let secondly = times("* * * * * *", "Europe/Madrid");
        let until = at("2026-11-26T00:00:00Z");
        let found = secondly.latest(at("1990-01-01T00:00:00Z"), until, 5);
        let expected: Vec<Timestamp> =
            (0..5).rev().map(|n| until.saturating_sub(Duration::from_secs(n))).collect();
        assert_eq!(found, expected);
    }

    /// A time in the two days before the clocks of a zone change, or any time where they do not.
    fn before_a_change(zone: &str, seed: i64) -> Timestamp {
        let start = jiff::Timestamp::from_second(600_000_000 + seed).unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let change = zone.following(start).next().map_or(start, |change| change.timestamp());
        let before = seed.rem_euclid(2 * DAY);
        Timestamp::from_micros((change.as_second() - before) * SECOND)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Whatever the clocks do, a rule with one time of day fires once on every date, at that time or, where it does
        /// not exist, at the first moment after the gap.
        #[test]
        fn a_fixed_time_fires_once_a_day(
            zone in 0..ZONES.len(), seed in 0..1_400_000_000_i64, hour in 0..24_i8, minute in 0..60_i8,
        ) {
            let times = times(&format!("{minute} {hour} * * *"), ZONES[zone]);
            let after = before_a_change(ZONES[zone], seed);
            let until = after.saturating_add(Duration::from_secs(6 * 86_400));
            let found = between(&times, after, until);
            prop_assert!((5..=7).contains(&found.len()), "{} fires", found.len());
            for pair in found.windows(2) {
                let (first, second) = (civil(pair[0], &times.zone), civil(pair[1], &times.zone));
                let days = first.date().until(second.date()).unwrap().get_days();
                prop_assert_eq!(days, 1, "{} then {}", first, second);
            }
            for time in found {
                let shown = civil(time, &times.zone);
                let wanted = shown.date().at(hour, minute, 0, 0);
                if shown != wanted {
                    let missing = times.zone.to_ambiguous_zoned(wanted);
                    let in_gap = matches!(missing.offset(), jiff::tz::AmbiguousOffset::Gap { .. });
                    let just_before = civil(Timestamp::from_micros(time.as_micros() - SECOND), &times.zone);
                    prop_assert!(in_gap && just_before < wanted && wanted < shown, "{} for {}", shown, wanted);
                }
            }
        }

        /// A rule of every n minutes fires at every moment at which the clock on the wall shows such a minute, and at no
        /// other.
        #[test]
        fn steps_fire_whenever_the_wall_shows_them(
            zone in 0..ZONES.len(), seed in 0..1_400_000_000_i64, step in prop::sample::select(vec![5_i64, 10, 15, 30]),
        ) {
            let times = times(&format!("*/{step} * * * *"), ZONES[zone]);
            let after = Timestamp::from_micros(before_a_change(ZONES[zone], seed).as_micros() + 1);
            let until = after.saturating_add(Duration::from_secs(3 * 86_400));
            let shows = |time: &Timestamp| {
                let shown = civil(*time, &times.zone);
                i64::from(shown.minute()) % step == 0 && shown.second() == 0
            };
            let first = after.as_micros().div_euclid(60 * SECOND) + 1;
            let last = until.as_micros().div_euclid(60 * SECOND);
            let minutes = (first..=last).map(|minute| Timestamp::from_micros(minute * 60 * SECOND));
            let expected: Vec<Timestamp> = minutes.filter(shows).collect();
            prop_assert_eq!(between(&times, after, until), expected);
        }

        /// The latest times are the end of all times, where they come evenly and where they come in heaps.
        #[test]
        fn the_latest_are_the_last_of_all(
            zone in 0..ZONES.len(), start in 600_000_000..2_000_000_000_i64, span in 1..20 * DAY, most in 1..40_usize,
            rule in prop::sample::select(vec!["7 */3 * * *", "30 2 * * *", "0 0 1 * *", "*/5 1 * * SUN", "* 3 7 * *"]),
        ) {
            let times = times(rule, ZONES[zone]);
            let (after, until) =
                (Timestamp::from_micros(start * SECOND), Timestamp::from_micros((start + span) * SECOND));
            let all = between(&times, after, until);
            let tail = &all[all.len().saturating_sub(most)..];
            prop_assert_eq!(times.latest(after, until, most), tail);
        }
    }
}
