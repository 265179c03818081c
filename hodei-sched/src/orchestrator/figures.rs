//! Whether the figures that a node is given are such that it can go by them.

use std::time::Duration;

use hodei_core::Fault;
use hodei_core::job::Priority;
use hodei_core::store::OWNER_TTL_MIN;

use crate::machine::{SchedulerConfig, trusted};

/// The longest time that a node may be told to wait for anything.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);
/// How many jobs may be claimed ahead at most.
const PREFETCH_MAX: u32 = 1 << 20;
/// How many transitions may go into one exchange at most.
const BATCH_MAX: usize = 1 << 16;

/// What is wrong with the beats of a node, and the time after which it counts as dead.
pub(super) fn heartbeat(beat: Duration, ttl: Duration) -> Vec<Fault> {
    let mut faults = Vec::new();
    if ttl < OWNER_TTL_MIN || ttl <= beat.saturating_mul(2) {
        faults.push(Fault::new("heartbeat", "ttl_too_short").detail("the ttl must be more than two beats"));
    }
    if ttl > TIME_MAX {
        faults.push(Fault::new("heartbeat", "ttl_too_long").limit(TIME_MAX.as_secs()));
    }
    if beat.is_zero() {
        faults.push(Fault::new("heartbeat", "zero"));
    }
    faults
}

/// What is wrong with the figures of a scheduler. `fence_margin` is none of them: the builder sets it.
pub(super) fn scheduler(config: &SchedulerConfig) -> Vec<Fault> {
    let mut faults = Vec::new();
    if config.prefetch_max > PREFETCH_MAX {
        faults.push(Fault::new("prefetch_max", "too_large").limit(PREFETCH_MAX.into()));
    }
    if !(1..=BATCH_MAX).contains(&config.batch_max) {
        faults.push(Fault::new("batch_max", "out_of_range").limit(BATCH_MAX as u64));
    }
    if config.lost_max == 0 {
        faults.push(Fault::new("lost_max", "zero"));
    }
    if config.memory_growth == 0 {
        faults.push(Fault::new("memory_growth", "zero"));
    }
    let levels = Priority::MAX.level();
    if config.preempt.is_some_and(|gap| !(1..=levels).contains(&gap)) {
        faults.push(Fault::new("preempt", "out_of_range").limit(levels.into()));
    }
    faults.extend(times(config));
    faults
}

fn times(config: &SchedulerConfig) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (field, time) in [
        ("session_ttl", Some(config.session_ttl)),
        ("next_sync", Some(config.next_sync)),
        ("poll_interval", Some(config.poll_interval)),
        ("idle_poll", Some(config.idle_poll)),
        ("retry_wait", Some(config.retry_wait)),
        ("claim_wait", Some(config.claim_wait)),
        ("ageing.every", config.ageing.map(|ageing| ageing.every)),
    ] {
        if time.is_some_and(|time| time.is_zero()) {
            faults.push(Fault::new(field, "zero"));
        }
        if time.is_some_and(|time| time > TIME_MAX) {
            faults.push(Fault::new(field, "too_large").limit(TIME_MAX.as_secs()));
        }
    }
    // A call may wait for as long as the one before it, and the agent counts from that.
    if !config.session_ttl.is_zero() && trusted(config.session_ttl) <= config.next_sync.saturating_mul(2) {
        let detail = "seven eighths of it must be more than twice next_sync";
        faults.push(Fault::new("session_ttl", "too_short").detail(detail));
    }
    // A node may rest at once.
    if config.rest_after > TIME_MAX {
        faults.push(Fault::new("rest_after", "too_large").limit(TIME_MAX.as_secs()));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Ageing;

    /// What is wrong with figures of which some are others than the default.
    fn wrong(change: impl FnOnce(&mut SchedulerConfig)) -> Vec<String> {
        let mut config = SchedulerConfig::default();
        change(&mut config);
        scheduler(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_figure_has_its_bounds() {
        const LONG: Duration = Duration::from_secs(366 * 24 * 3_600 + 1);
        let ageing = |every| Some(Ageing { every, ceiling: Priority::MAX });
        let zero = Duration::ZERO;
        type Change = Box<dyn FnOnce(&mut SchedulerConfig)>;
        let table: Vec<(Change, &str)> = vec![
            (Box::new(|c| c.prefetch_max = PREFETCH_MAX + 1), "prefetch_max: too_large (limit 1048576)"),
            (Box::new(|c| c.batch_max = 0), "batch_max: out_of_range (limit 65536)"),
            (Box::new(|c| c.batch_max = BATCH_MAX + 1), "batch_max: out_of_range (limit 65536)"),
            (Box::new(|c| c.lost_max = 0), "lost_max: zero"),
            (Box::new(|c| c.memory_growth = 0), "memory_growth: zero"),
            (Box::new(|c| c.preempt = Some(0)), "preempt: out_of_range (limit 63)"),
            (Box::new(|c| c.preempt = Some(64)), "preempt: out_of_range (limit 63)"),
            (Box::new(move |c| c.session_ttl = zero), "session_ttl: zero"),
            (Box::new(|c| c.session_ttl = LONG), "session_ttl: too_large (limit 31622400)"),
            (Box::new(move |c| c.next_sync = zero), "next_sync: zero"),
            (Box::new(move |c| c.poll_interval = zero), "poll_interval: zero"),
            (Box::new(|c| c.poll_interval = LONG), "poll_interval: too_large (limit 31622400)"),
            (Box::new(move |c| c.idle_poll = zero), "idle_poll: zero"),
            (Box::new(|c| c.idle_poll = LONG), "idle_poll: too_large (limit 31622400)"),
            (Box::new(move |c| c.retry_wait = zero), "retry_wait: zero"),
            (Box::new(|c| c.retry_wait = Duration::MAX), "retry_wait: too_large (limit 31622400)"),
            (Box::new(move |c| c.claim_wait = zero), "claim_wait: zero"),
            (Box::new(|c| c.claim_wait = LONG), "claim_wait: too_large (limit 31622400)"),
            (Box::new(move |c| c.ageing = ageing(zero)), "ageing.every: zero"),
            (Box::new(move |c| c.ageing = ageing(LONG)), "ageing.every: too_large (limit 31622400)"),
            (Box::new(|c| c.rest_after = LONG), "rest_after: too_large (limit 31622400)"),
        ];
        for (change, expected) in table {
            assert_eq!(wrong(change), [expected]);
        }
    }

    #[test]
    fn what_lies_at_a_bound_is_taken() {
        assert_eq!(wrong(|_| {}), [""; 0]);
        let least = |c: &mut SchedulerConfig| {
            (c.prefetch_max, c.batch_max, c.lost_max, c.memory_growth) = (0, 1, 1, 1);
            (c.preempt, c.ageing, c.rest_after) = (Some(1), None, Duration::ZERO);
        };
        assert_eq!(wrong(least), [""; 0]);
        let most = |c: &mut SchedulerConfig| {
            (c.prefetch_max, c.batch_max, c.preempt) = (PREFETCH_MAX, BATCH_MAX, Some(63));
            c.ageing = Some(Ageing { every: TIME_MAX, ceiling: Priority::MAX });
            (c.session_ttl, c.next_sync) = (TIME_MAX, TIME_MAX * 2 / 5);
            (c.poll_interval, c.idle_poll) = (TIME_MAX, TIME_MAX);
            (c.retry_wait, c.claim_wait, c.rest_after) = (TIME_MAX, TIME_MAX, TIME_MAX);
        };
        assert_eq!(wrong(most), [""; 0]);
    }

    /// An agent whose call was answered when it had waited for nearly as long as it may has its next one answered when that has:
    /// an agent that lets go before, or a node that does, has runs end for nothing.
    #[test]
    fn a_session_outlives_two_calls_that_wait() {
        let short = "session_ttl: too_short: seven eighths of it must be more than twice next_sync";
        let calls = |ttl: u64, next_sync: u64| {
            let millis = Duration::from_millis;
            wrong(|c| (c.session_ttl, c.next_sync) = (millis(ttl), millis(next_sync)))
        };
        for (ttl, next_sync) in [(2_000, 2_000), (1_999, 2_000), (4_000, 2_000), (1_600, 700)] {
            assert_eq!(calls(ttl, next_sync), [short], "{ttl} {next_sync}");
        }
        for (ttl, next_sync) in [(6_000, 2_000), (1_600, 699), (2_000, 600)] {
            assert_eq!(calls(ttl, next_sync), [""; 0], "{ttl} {next_sync}");
        }
        let endless = wrong(|c| c.next_sync = Duration::MAX);
        assert_eq!(endless, ["next_sync: too_large (limit 31622400)", short]);
    }

    #[test]
    fn a_node_beats_more_than_twice_in_its_life_and_no_life_is_endless() {
        let second = Duration::from_secs(1);
        let short = "heartbeat: ttl_too_short: the ttl must be more than two beats";
        let long = "heartbeat: ttl_too_long (limit 31622400)";
        for (beat, ttl, expected) in [
            (second, second * 3, vec![]),
            (second, second * 2, vec![short]),
            (Duration::ZERO, second * 6, vec!["heartbeat: zero"]),
            (Duration::MAX, Duration::MAX, vec![short, long]),
            (second, Duration::MAX, vec![long]),
            (Duration::from_nanos(1), OWNER_TTL_MIN - Duration::from_nanos(1), vec![short]),
        ] {
            let faults: Vec<String> = heartbeat(beat, ttl).iter().map(ToString::to_string).collect();
            assert_eq!(faults, expected, "{beat:?} {ttl:?}");
        }
    }
}
