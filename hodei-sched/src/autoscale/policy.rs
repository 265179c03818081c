//! The policy: pure, shown the load and the time.

use std::collections::VecDeque;
use std::time::Duration;

use hodei_core::{Error, Fault, Result, Timestamp};

/// The longest time that a policy may look back or wait.
const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How much a new measurement of a rate or a time counts against the old ones.
const WEIGHT: f64 = 0.3;

/// What an autoscaler goes by.
#[derive(Clone, Debug)]
pub struct ScalePolicy {
    min: u32,
    max: u32,
    slots: u32,
    target_wait: Duration,
    use_of_slots: f64,
    up_window: Duration,
    down_window: Duration,
    cooldown: Duration,
    idle: Duration,
    step: u32,
}

impl ScalePolicy {
    /// Keeps the number of agents between two bounds. With a lower bound of 0 there may be none while there is no work.
    #[must_use]
    pub fn between(min: u32, max: u32) -> Self {
        Self {
            min,
            max,
            slots: 1,
            target_wait: Duration::from_secs(30),
            use_of_slots: 0.8,
            up_window: Duration::ZERO,
            down_window: Duration::from_secs(300),
            cooldown: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            step: u32::MAX,
        }
    }

    /// Sets how many jobs an agent runs at once. Default: 1.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Sets how long a job may wait: what is queued is worked off within this time. Default: 30 s.
    #[must_use]
    pub fn target_wait(mut self, wait: Duration) -> Self {
        self.target_wait = wait;
        self
    }

    /// Sets which part of all slots is to be in use, above 0 and up to 1; the rest takes up what comes unevenly.
    /// Default: 0.8.
    #[must_use]
    pub fn use_of_slots(mut self, part: f64) -> Self {
        self.use_of_slots = part;
        self
    }

    /// Sets for how long more agents must have been wanted before there are more. Default: not at all.
    #[must_use]
    pub fn up_window(mut self, window: Duration) -> Self {
        self.up_window = window;
        self
    }

    /// Sets for how long fewer agents must have been wanted before there are fewer. Default: 5 min.
    #[must_use]
    pub fn down_window(mut self, window: Duration) -> Self {
        self.down_window = window;
        self
    }

    /// Sets how long after a change there is no other one, but from zero. Default: 30 s.
    #[must_use]
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }

    /// Sets for how long there must have been no work at all before there are no agents at all. Default: 5 min.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Sets by how many agents one change goes up or down at most. Default: any number.
    #[must_use]
    pub fn step(mut self, step: u32) -> Self {
        self.step = step;
        self
    }

    fn check(&self) -> Result<()> {
        let mut faults = Vec::new();
        if self.max == 0 {
            faults.push(Fault::new("max", "zero"));
        }
        if self.min > self.max {
            faults.push(Fault::new("min", "above_max").limit(self.max.into()));
        }
        for (field, number) in [("slots", self.slots), ("step", self.step)] {
            if number == 0 {
                faults.push(Fault::new(field, "zero"));
            }
        }
        if !(self.use_of_slots > 0.0 && self.use_of_slots <= 1.0) {
            faults.push(Fault::new("use_of_slots", "out_of_range").detail(self.use_of_slots.to_string()));
        }
        if self.target_wait.is_zero() {
            faults.push(Fault::new("target_wait", "zero"));
        }
        for (field, time) in [
            ("target_wait", self.target_wait),
            ("up_window", self.up_window),
            ("down_window", self.down_window),
            ("cooldown", self.cooldown),
            ("idle", self.idle),
        ] {
            if time > TIME_MAX {
                faults.push(Fault::new(field, "too_large").limit(TIME_MAX.as_secs()));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::invalid("autoscale.policy", faults)) }
    }
}

/// The load at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// When it was looked at.
    pub at: Timestamp,
    /// How many slots the jobs would take that could start now: one each, and of a gang one on each of its workers.
    pub queued: u64,
    /// How many jobs are held by agents.
    pub running: u64,
    /// How long the one that waits longest has waited.
    pub oldest: Duration,
    /// How many jobs have ended since some time in the past; only what it rises by counts.
    pub ended: u64,
}

impl Load {
    /// No load at a time.
    #[must_use]
    pub const fn at(at: Timestamp) -> Self {
        Self { at, queued: 0, running: 0, oldest: Duration::ZERO, ended: 0 }
    }
}

/// Why there should be so many agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// As many as there are.
    Enough,
    /// More work than they can do in time.
    Behind,
    /// Less work than they could do, for long enough.
    Spare,
    /// No work for long enough.
    Idle,
    /// There is work, and nobody to do it.
    Woken,
    /// A bound says so.
    Bound,
    /// Another number is wanted, and it is too early to change.
    Waiting,
}

/// How many agents there should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// So many.
    pub agents: u32,
    /// And why.
    pub why: Why,
}

/// What an autoscaler has measured of the load.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    /// Jobs that came, per second.
    arrivals: Option<f64>,
    /// Seconds that a job takes.
    service: Option<f64>,
}

/// Decides how many agents there should be.
///
/// What is wanted is the sum of two needs: the slots that keep up with what comes (arrivals per second × seconds a job
/// takes, by Little's law) and those that work off what is queued within the time that a job may wait. Both are measured
/// from what it is shown; until it has seen jobs end, an agent's slots for each queued job are wanted. Where one waits longer
/// than it may all the same, another agent is wanted; unless the last one that was wanted for its sake came, and neither did
/// it begin nor did more run: it waits for something that agents do not bring.
#[derive(Clone, Debug)]
pub struct Autoscaler {
    policy: ScalePolicy,
    last: Option<Load>,
    measured: Measured,
    /// What was wanted at each time of the longer window.
    wanted: VecDeque<(Timestamp, u32)>,
    changed: Option<Timestamp>,
    idle_since: Option<Timestamp>,
    /// The last rise for the sake of one that waited too long.
    rise: Option<Rise>,
    /// The change that was decided last, until it is carried out.
    decided: Option<Decided>,
}

/// A change that was decided: when, and for whose sake if it is a rise for the sake of one that waits too long.
#[derive(Clone, Copy, Debug)]
struct Decided {
    at: Timestamp,
    rise: Option<Rise>,
}

/// A rise because somebody waited too long: since when he waits, and how many jobs ran then.
#[derive(Clone, Copy, Debug)]
struct Rise {
    since: Timestamp,
    running: u64,
}

impl Autoscaler {
    /// Takes a policy.
    ///
    /// # Errors
    ///
    /// `Invalid`: `max: zero`, `min: above_max`, `slots: zero`, `step: zero`, `target_wait: zero`,
    /// `use_of_slots: out_of_range`, and `too_large` for a time of more than seven days.
    pub fn new(policy: ScalePolicy) -> Result<Self> {
        policy.check()?;
        let (last, changed, idle_since, rise, decided) = (None, None, None, None, None);
        let (measured, wanted) = (Measured::default(), VecDeque::new());
        Ok(Self { policy, last, measured, wanted, changed, idle_since, rise, decided })
    }

    /// Decides, where there are so many agents now. Call it at regular intervals, well below the windows; a call with a
    /// time before the last one is taken for one at that time.
    ///
    /// What is decided counts as a change only when it was [carried out](Self::carried_out); until then it is decided again.
    pub fn decide(&mut self, load: &Load, agents: u32) -> Decision {
        let load = Load { at: self.last.map_or(load.at, |last| last.at.max(load.at)), ..*load };
        self.measure(&load);
        let work = load.queued + load.running > 0;
        self.idle_since = if work { None } else { self.idle_since.or(Some(load.at)) };
        let wanted = self.wanted_for(&load, agents);
        self.remember(load.at, wanted);
        let decision = self.settle(&load, agents, wanted);
        let rises = decision.agents > agents && self.waits_too_long(&load);
        let rise = rises.then(|| Rise { since: waits_since(&load), running: load.running });
        self.decided = (decision.agents != agents).then_some(Decided { at: load.at, rise });
        decision
    }

    /// Notes that what was decided last was carried out: from then on the cooldown runs, and a rise for the sake of one that
    /// waits too long has been tried. To be called after each decision for which the target took the number; nothing, where
    /// that changed nothing.
    pub fn carried_out(&mut self) {
        let Some(Decided { at, rise }) = self.decided.take() else { return };
        self.changed = Some(at);
        self.rise = rise.or(self.rise);
    }

    /// Takes in what came and what ended since the last look.
    fn measure(&mut self, load: &Load) {
        if let Some(last) = self.last.replace(*load) {
            let seconds = load.at.saturating_since(last.at).as_secs_f64();
            if seconds > 0.0 {
                let ended = number(load.ended.saturating_sub(last.ended));
                let open = |load: &Load| number(load.queued + load.running);
                let came = (ended + open(load) - open(&last)).max(0.0);
                blend(&mut self.measured.arrivals, came / seconds);
                if ended > 0.0 {
                    let busy = (number(last.running) + number(load.running)) / 2.0;
                    blend(&mut self.measured.service, busy * seconds / ended);
                }
            }
        }
    }

    /// The number that the load asks for, within the bounds.
    fn wanted_for(&self, load: &Load, agents: u32) -> u32 {
        let policy = &self.policy;
        if self.idle_since.is_some_and(|since| load.at.saturating_since(since) >= policy.idle) {
            return policy.min;
        }
        let slots = match self.measured.service {
            Some(service) => {
                let keeps_up = self.measured.arrivals.unwrap_or(0.0) * service;
                let works_off = number(load.queued) * service / policy.target_wait.as_secs_f64();
                (keeps_up / policy.use_of_slots + works_off)
                    // What runs has its slots, whatever was measured.
                    .max(number(load.running))
            }
            None => number(load.queued + load.running),
        };
        let mut wanted = ceil(slots / f64::from(policy.slots));
        if self.waits_too_long(load) && !self.rose_in_vain(load) {
            // Whatever was measured, it is not enough.
            wanted = wanted.max(agents.saturating_add(1));
        }
        wanted.clamp(policy.min.max(1), policy.max)
    }

    fn waits_too_long(&self, load: &Load) -> bool {
        load.queued > 0 && load.oldest > self.policy.target_wait
    }

    /// Whether there was a rise for the sake of the one that waits longest, and it has brought nothing.
    fn rose_in_vain(&self, load: &Load) -> bool {
        self.rise.is_some_and(|rise| waits_since(load) <= rise.since && load.running <= rise.running)
            && self.changed.is_none_or(|then| load.at.saturating_since(then) >= self.policy.cooldown)
    }

    fn remember(&mut self, at: Timestamp, wanted: u32) {
        let longest = self.policy.up_window.max(self.policy.down_window);
        self.wanted.push_back((at, wanted));
        // The one before the window begins tells what was wanted when it began.
        while self.wanted.get(1).is_some_and(|(then, _)| at.saturating_since(*then) >= longest) {
            self.wanted.pop_front();
        }
    }

    /// What was wanted at each time of a window; nothing while less than it has been seen.
    fn within(&self, window: Duration, at: Timestamp) -> Option<impl Iterator<Item = u32> + '_> {
        let begins = self.wanted.iter().rposition(|(then, _)| at.saturating_since(*then) >= window)?;
        Some(self.wanted.range(begins..).map(|(_, wanted)| *wanted))
    }

    fn settle(&self, load: &Load, agents: u32, wanted: u32) -> Decision {
        let policy = &self.policy;
        let decided = |agents, why| Decision { agents, why };
        if agents < policy.min || agents > policy.max {
            return decided(agents.clamp(policy.min, policy.max), Why::Bound);
        }
        if agents == 0 {
            let work = load.queued + load.running > 0;
            return if work { decided(wanted.min(policy.step), Why::Woken) } else { decided(0, Why::Enough) };
        }
        if wanted == agents {
            return decided(agents, Why::Enough);
        }
        let cooling = self.changed.is_some_and(|then| load.at.saturating_since(then) < policy.cooldown);
        let up = wanted > agents;
        let window = if up { policy.up_window } else { policy.down_window };
        let lasting = self.within(window, load.at).and_then(|seen| if up { seen.min() } else { seen.max() });
        match lasting {
            Some(lasting) if !cooling && up && lasting > agents => {
                decided(lasting.min(agents.saturating_add(policy.step)), Why::Behind)
            }
            Some(lasting) if !cooling && !up && lasting < agents => {
                let fewer = lasting.max(agents.saturating_sub(policy.step));
                decided(fewer, if fewer == 0 { Why::Idle } else { Why::Spare })
            }
            _ => decided(agents, Why::Waiting),
        }
    }
}

fn waits_since(load: &Load) -> Timestamp {
    load.at.saturating_sub(load.oldest)
}

/// Mixes a measurement into what was measured before.
fn blend(known: &mut Option<f64>, new: f64) {
    *known = Some(known.map_or(new, |known| known + WEIGHT * (new - known)));
}

#[expect(clippy::cast_precision_loss, reason = "a count of jobs; the policy does not go by its last digits")]
fn number(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits before")]
fn ceil(agents: f64) -> u32 {
    agents.ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests;
