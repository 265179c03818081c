//! When a schedule fires, as it is written into its row.

use std::time::Duration;

use hodei_core::time::micros;
use hodei_core::{Error, Fault, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::times::Times;

/// The longest cron expression, in bytes.
const EXPRESSION_MAX: usize = 256;
/// The longest jitter.
const JITTER_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The longest grace.
const GRACE_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// What becomes of the times that were missed: those that are past by more than the grace, because no node ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// They are left out.
    Skip,
    /// The latest of them fires; the others are left out.
    #[default]
    FireOnce,
    /// The latest of them fire, oldest first; the others are left out.
    CatchUp {
        /// How many at most: 1 to [`CronRule::FIRES_MAX`].
        at_most: u16,
    },
}

/// When a schedule fires: a cron expression in a time zone, and what becomes of times that were missed.
///
/// The expression has five fields (minute, hour, day of the month, month, day of the week), six with seconds before
/// them, or seven with years after those; or it is a nickname such as `@daily`.
///
/// Where clocks change, a rule that names one time of day fires exactly once every day: a time that does not exist fires
/// at the first moment after the gap, one that comes twice at its first coming. A rule with steps, ranges or lists in its
/// time of day follows the clock on the wall: what does not exist does not fire, and what comes twice fires twice.
///
/// ```
/// use hodei_core::Timestamp;
/// use hodei_sched::cron::CronRule;
///
/// let rule = CronRule::new("0 12 * * *").zone("Asia/Tokyo");
/// assert_eq!(rule.upcoming(Timestamp::EPOCH, 1)?, [Timestamp::from_micros(3 * 3_600_000_000)]);
/// # Ok::<(), hodei_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronRule {
    expression: String,
    zone: String,
    misfire: Misfire,
    grace: Duration,
    jitter: Duration,
}

impl CronRule {
    /// The most times that one schedule fires at once.
    pub const FIRES_MAX: u16 = 1_000;

    /// Takes a cron expression, to be read in UTC. Nothing is checked before the rule is used.
    #[must_use]
    pub fn new(expression: impl Into<String>) -> Self {
        Self {
            expression: expression.into(),
            zone: "UTC".to_owned(),
            misfire: Misfire::default(),
            grace: Duration::from_secs(60),
            jitter: Duration::ZERO,
        }
    }

    /// Sets the time zone, by its IANA name. Default: UTC.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Sets what becomes of times that were missed. Default: the latest of them fires.
    #[must_use]
    pub fn misfire(mut self, misfire: Misfire) -> Self {
        self.misfire = misfire;
        self
    }

    /// Sets how late a time may be and still be no missed one; longer than a change of the leader takes. At most 366
    /// days. Default: 1 min.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Lets each time fire up to so much later, so that many schedules of the same time do not fire at once. How much
    /// depends on the schedule and the time alone: every node finds the same. Times fire in their order, so one that is held
    /// back holds back those behind it. At most a day, and no longer than [`CronRule::FIRES_MAX`] times of the rule take.
    /// Default: none.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// Returns the next fire times after a time, without jitter; fewer where there are no more.
    ///
    /// # Errors
    ///
    /// `Invalid`: `cron: empty | too_long | invalid`, `zone: unknown`, `misfire: out_of_range`, `grace: too_large`,
    /// `jitter: too_large | too_many_times`.
    pub fn upcoming(&self, after: Timestamp, most: usize) -> Result<Vec<Timestamp>> {
        let times = self.compile()?;
        let next = std::iter::successors(times.next_after(after), |last| times.next_after(*last));
        Ok(next.take(most).collect())
    }

    /// Checks everything.
    pub(crate) fn compile(&self) -> Result<Times> {
        let mut faults = Vec::new();
        if self.expression.len() > EXPRESSION_MAX {
            faults.push(Fault::new("cron", "too_long").limit(EXPRESSION_MAX as u64));
        }
        if let Misfire::CatchUp { at_most } = self.misfire
            && !(1..=Self::FIRES_MAX).contains(&at_most)
        {
            faults.push(Fault::new("misfire", "out_of_range").limit(Self::FIRES_MAX.into()));
        }
        if self.grace > GRACE_MAX {
            faults.push(Fault::new("grace", "too_large").limit(GRACE_MAX.as_secs()));
        }
        if self.jitter > JITTER_MAX {
            faults.push(Fault::new("jitter", "too_large").limit(JITTER_MAX.as_secs()));
        }
        if faults.is_empty() {
            match Times::compile(&self.expression, &self.zone) {
                Ok(times) if !times.more_within(self.jitter, Self::FIRES_MAX.into()) => return Ok(times),
                Ok(_) => faults.push(Fault::new("jitter", "too_many_times").limit(Self::FIRES_MAX.into())),
                Err(found) => faults = found,
            }
        }
        Err(Error::invalid("cron.rule", faults))
    }

    pub(super) fn misses(&self) -> Misfire {
        self.misfire
    }

    pub(crate) fn patience(&self) -> Duration {
        self.grace
    }

    /// Returns how much later a time fires.
    pub(crate) fn delay(&self, schedule: &str, at: Timestamp) -> Duration {
        let range = u128::try_from(micros(self.jitter)).unwrap_or(0) + 1;
        // FNV-1a over the name and the time, finished by SplitMix64 (Steele, Lea, Flood 2014).
        let bytes = schedule.bytes().chain(at.as_micros().to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut z = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The high half of the product spreads the bits evenly over the range.
        Duration::from_micros(u64::try_from((u128::from(z) * range) >> 64).unwrap_or(0))
    }
}

/// A rule with what the row knows beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) rule: CronRule,
    /// Nothing fires while this is set.
    pub(super) paused: bool,
    /// Only times after this one fire; unknown where somebody wrote a bare expression into the row.
    pub(super) since: Option<Timestamp>,
}

/// The rule as the row has it: JSON, so that people can read it. A field that this version does not know is a rule that
/// it does not understand, and fires nothing.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cron: String,
    zone: String,
    misfire: Misfire,
    grace_us: u64,
    jitter_us: u64,
    #[serde(default)]
    paused: bool,
    since_us: i64,
}

impl Kept {
    pub(super) fn text(&self) -> String {
        let us = |duration| u64::try_from(micros(duration)).unwrap_or(0);
        let written = Written {
            cron: self.rule.expression.clone(),
            zone: self.rule.zone.clone(),
            misfire: self.rule.misfire,
            grace_us: us(self.rule.grace),
            jitter_us: us(self.rule.jitter),
            paused: self.paused,
            since_us: self.since.unwrap_or(Timestamp::EPOCH).as_micros(),
        };
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads a row's rule. What is no JSON object is a bare expression, in UTC and with the defaults.
    pub(super) fn read(text: &str) -> Result<Self> {
        if !text.trim_start().starts_with('{') {
            return Ok(Self { rule: CronRule::new(text), paused: false, since: None });
        }
        let written: Written = serde_json::from_str(text).map_err(|source| {
            Error::invalid("cron.rule", vec![Fault::new("rule", "not_understood")]).source_error(source)
        })?;
        let rule = CronRule {
            expression: written.cron,
            zone: written.zone,
            misfire: written.misfire,
            grace: Duration::from_micros(written.grace_us),
            jitter: Duration::from_micros(written.jitter_us),
        };
        let since = Some(Timestamp::from_micros(written.since_us));
        Ok(Self { rule, paused: written.paused, since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_comes_back_from_its_row() {
        let rule = CronRule::new("*/5 * * * *")
            .zone("America/New_York")
            .misfire(Misfire::CatchUp { at_most: 7 })
            .grace(Duration::from_millis(1_500))
            .jitter(Duration::from_secs(30));
        for paused in [false, true] {
            let kept = Kept { rule: rule.clone(), paused, since: Some(Timestamp::from_micros(-5)) };
            assert_eq!(Kept::read(&kept.text()).unwrap(), kept);
        }
        let bare = Kept::read("@daily").unwrap();
        assert_eq!((bare.rule, bare.paused, bare.since), (CronRule::new("@daily"), false, None));
    }

    #[test]
    fn what_this_version_does_not_know_is_not_understood() {
        let text = Kept { rule: CronRule::new("@daily"), paused: false, since: None }.text();
        for wrong in
            [text.replace('{', "{\"calendar\":1,"), text.replace("fire_once", "later"), "{".to_owned()]
        {
            let error = Kept::read(&wrong).unwrap_err();
            assert_eq!(error.faults()[0].code, "not_understood", "{wrong}");
        }
    }

    #[test]
    fn each_fault_is_told_exactly() {
        let day = Duration::from_secs(86_400);
        let daily = || CronRule::new("@daily");
        for (rule, expected) in [
            (CronRule::new(""), "cron: empty"),
            (CronRule::new("  "), "cron: empty"),
            (CronRule::new("* ".repeat(200)), "cron: too_long (limit 256)"),
            (daily().zone("Mars/Olympus"), "zone: unknown: Mars/Olympus"),
            (daily().zone(""), "zone: unknown"),
            (daily().misfire(Misfire::CatchUp { at_most: 0 }), "misfire: out_of_range (limit 1000)"),
            (daily().misfire(Misfire::CatchUp { at_most: 1_001 }), "misfire: out_of_range (limit 1000)"),
            (daily().grace(day * 367), "grace: too_large (limit 31622400)"),
            (daily().jitter(day + day), "jitter: too_large (limit 86400)"),
            (CronRule::new("* * * * *").jitter(day), "jitter: too_many_times (limit 1000)"),
        ] {
            let error = rule.compile().unwrap_err();
            let told: Vec<String> = error.faults().iter().map(ToString::to_string).collect();
            assert_eq!(told, [expected]);
        }
        let wrong = [
            "x",
            "* * * *",
            "* * * * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "*/0 * * * *",
            "5-1/x * * * *",
            "∞ * * * *",
        ];
        for wrong in wrong {
            let error = CronRule::new(wrong).compile().unwrap_err();
            assert_eq!(
                (error.faults()[0].field.as_str(), error.faults()[0].code),
                ("cron", "invalid"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn jitter_stays_within_its_bound_and_is_the_same_everywhere() {
        let rule = CronRule::new("@daily").jitter(Duration::from_secs(10));
        let delays: Vec<Duration> =
            (0..1_000).map(|n| rule.delay("report", Timestamp::from_micros(n * 60_000_000))).collect();
        assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(10)));
        let mean = delays.iter().sum::<Duration>() / 1_000;
        assert!((Duration::from_secs(4)..Duration::from_secs(6)).contains(&mean), "spread evenly: {mean:?}");
        assert_eq!(rule.delay("report", Timestamp::EPOCH), delays[0]);
        assert_ne!(rule.delay("other", Timestamp::EPOCH), delays[0]);
        assert_eq!(CronRule::new("@daily").delay("report", Timestamp::EPOCH), Duration::ZERO);
    }
}
