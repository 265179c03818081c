use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> ScalePolicy {
    ScalePolicy::between(0, 20)
        .slots(4)
        .target_wait(SECOND * 30)
        .up_window(Duration::ZERO)
        .down_window(SECOND * 60)
        .cooldown(SECOND * 10)
        .idle(SECOND * 120)
}

/// A queue with agents behind it, in virtual time: jobs that take a while, agents that take a while to start.
struct World {
    autoscaler: Autoscaler,
    now: Timestamp,
    agents: u32,
    queued: Vec<Timestamp>,
    /// When each running job ends.
    running: Vec<Timestamp>,
    ended: u64,
    service: Duration,
    slots: usize,
    sizes: Vec<u32>,
    waits: Vec<Duration>,
}

impl World {
    fn new(policy: ScalePolicy, service: Duration) -> Self {
        let slots = policy.slots as usize;
        let autoscaler = Autoscaler::new(policy).unwrap();
        let (queued, running, sizes, waits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            autoscaler,
            now: Timestamp::EPOCH,
            agents: 0,
            queued,
            running,
            ended: 0,
            service,
            slots,
            sizes,
            waits,
        }
    }

    /// Lets a second pass in which so many jobs come.
    fn second(&mut self, arrivals: usize) -> Decision {
        self.now = self.now.saturating_add(SECOND);
        self.queued.extend(std::iter::repeat_n(self.now, arrivals));
        let before = self.running.len();
        self.running.retain(|end| *end > self.now);
        self.ended += (before - self.running.len()) as u64;
        let free = (self.agents as usize * self.slots).saturating_sub(self.running.len());
        for came in self.queued.drain(..free.min(self.queued.len())) {
            self.waits.push(self.now.saturating_since(came));
            self.running.push(self.now.saturating_add(self.service));
        }
        let load = Load {
            at: self.now,
            queued: self.queued.len() as u64,
            running: self.running.len() as u64,
            oldest: self.queued.first().map_or(Duration::ZERO, |came| self.now.saturating_since(*came)),
            ended: self.ended,
        };
        let decision = self.autoscaler.decide(&load, self.agents);
        self.autoscaler.carried_out();
        self.agents = decision.agents;
        self.sizes.push(self.agents);
        decision
    }

    fn seconds(&mut self, seconds: usize, arrivals: usize) {
        for _ in 0..seconds {
            self.second(arrivals);
        }
    }
}

#[test]
fn a_steady_load_gets_what_it_needs_and_no_more() {
    // Eight jobs a second of 3 s each keep 24 slots busy, which are 6 agents; at 80 % they are 7.5.
    let mut world = World::new(policy(), SECOND * 3);
    world.seconds(600, 8);
    let settled = &world.sizes[300..];
    assert!(settled.iter().all(|agents| (7..=9).contains(agents)), "{settled:?}");
    let changes = settled.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes <= 2, "it does not swing: {changes} changes");
    assert!(world.waits[2_400..].iter().all(|wait| *wait <= SECOND * 2), "nobody waits");
}

#[test]
fn work_wakes_what_was_scaled_to_zero_and_idleness_puts_it_back() {
    let mut world = World::new(policy(), SECOND * 2);
    assert_eq!(world.second(0), Decision { agents: 0, why: Why::Enough });
    assert_eq!(world.second(5), Decision { agents: 2, why: Why::Woken });
    world.seconds(100, 0);
    assert!(world.agents >= 1, "idle, but not for long enough");
    world.seconds(120, 0);
    assert_eq!(world.agents, 0);
    assert_eq!(world.second(1).why, Why::Woken);
}

#[test]
fn a_backlog_is_worked_off_in_time() {
    let mut world = World::new(policy(), SECOND * 3);
    world.seconds(60, 2);
    world.waits.clear();
    world.second(200);
    world.seconds(60, 2);
    let longest = world.waits.iter().max().copied().unwrap();
    assert!(longest <= SECOND * 45, "{longest:?}");
    assert!(world.sizes.iter().all(|agents| *agents <= 20));
}

#[test]
fn a_short_lull_stops_nobody_and_a_long_one_does() {
    let mut world = World::new(policy(), SECOND * 3);
    world.seconds(300, 8);
    let busy = world.agents;
    world.seconds(50, 1);
    assert_eq!(world.agents, busy, "shorter than the window");
    world.seconds(200, 1);
    assert!(world.agents <= 2, "{}", world.agents);
}

#[test]
fn a_change_is_followed_by_a_cooldown_and_is_no_larger_than_a_step() {
    let mut world = World::new(policy().step(2), SECOND * 30);
    world.second(100);
    assert_eq!(world.agents, 2);
    for expected in [(10, 4), (10, 6), (10, 8)] {
        world.seconds(expected.0 - 1, 0);
        assert_eq!(world.agents, expected.1 - 2, "it cools down");
        world.second(0);
        assert_eq!(world.agents, expected.1);
    }
}

#[test]
fn more_must_be_wanted_throughout_the_window() {
    let mut scaler = Autoscaler::new(policy().up_window(SECOND * 20)).unwrap();
    let at = |second, queued| Load { queued, ..Load::at(Timestamp::EPOCH.saturating_add(SECOND * second)) };
    assert_eq!(scaler.decide(&at(0, 0), 1).why, Why::Enough);
    for second in 1..20 {
        let queued = if second == 10 { 0 } else { 40 };
        assert_eq!(scaler.decide(&at(second, queued), 1).agents, 1, "second {second}");
    }
    for second in 20..31 {
        assert_eq!(scaler.decide(&at(second, 40), 1).agents, 1, "second {second}");
    }
    assert_eq!(scaler.decide(&at(31, 40), 1), Decision { agents: 10, why: Why::Behind });
}

#[test]
fn who_waits_too_long_gets_one_more_whatever_was_measured() {
    let mut scaler = Autoscaler::new(policy()).unwrap();
    let at = |second, ended| {
        let load = Load::at(Timestamp::EPOCH.saturating_add(SECOND * second));
        Load { queued: 1, running: 1, ended, oldest: SECOND * 31, ..load }
    };
    scaler.decide(&at(0, 0), 3);
    assert_eq!(scaler.decide(&at(11, 10_000), 3), Decision { agents: 4, why: Why::Behind });
}

/// A job that waits for something that agents do not bring, and nothing else.
#[test]
fn what_agents_cannot_help_is_not_helped_again_and_again() {
    let mut autoscaler = Autoscaler::new(policy()).unwrap();
    let (mut agents, mut most) = (0, 0);
    for second in 0..3_600 {
        let at = Timestamp::EPOCH.saturating_add(SECOND * second);
        let load = Load { queued: 1, oldest: SECOND * second, ..Load::at(at) };
        agents = autoscaler.decide(&load, agents).agents;
        autoscaler.carried_out();
        most = most.max(agents);
    }
    assert_eq!((agents, most), (1, 2), "one was tried, and went again");
}

/// A rise that was refused was taken for one in vain: after its cooldown nobody was asked for again.
#[test]
fn what_was_not_carried_out_is_decided_again_and_has_no_cooldown() {
    let mut scaler = Autoscaler::new(policy()).unwrap();
    let mut decide = |second, agents, carried_out| {
        let at = Timestamp::EPOCH.saturating_add(SECOND * second);
        let load = Load { queued: 1, running: 4, oldest: SECOND * (100 + second), ..Load::at(at) };
        let decision = scaler.decide(&load, agents);
        if carried_out {
            scaler.carried_out();
        }
        decision
    };
    for second in 0..40 {
        let decision = decide(second, 2, second == 39);
        assert_eq!(decision, Decision { agents: 3, why: Why::Behind }, "second {second}");
    }
    for second in 40..49 {
        assert_eq!(decide(second, 3, true).agents, 3, "it cools down");
    }
    for second in 49..80 {
        assert_eq!(decide(second, 3, true).agents, 3, "it was carried out in vain");
    }
}

#[test]
fn what_runs_keeps_its_slots_whatever_was_measured() {
    let mut autoscaler = Autoscaler::new(policy()).unwrap();
    let mut agents = 10;
    for second in 0..3_600 {
        // Nobody is seen to end, and nobody waits.
        let load = Load { running: 38, ..Load::at(Timestamp::EPOCH.saturating_add(SECOND * second)) };
        agents = autoscaler.decide(&load, agents).agents;
        autoscaler.carried_out();
        assert_eq!(agents, 10);
    }
}

#[test]
fn what_is_beyond_the_bounds_is_brought_back_at_once() {
    let mut scaler = Autoscaler::new(ScalePolicy::between(2, 5)).unwrap();
    assert_eq!(scaler.decide(&Load::at(Timestamp::EPOCH), 0), Decision { agents: 2, why: Why::Bound });
    assert_eq!(scaler.decide(&Load::at(Timestamp::EPOCH), 9), Decision { agents: 5, why: Why::Bound });
}

#[test]
fn each_fault_is_told() {
    let long = TIME_MAX + SECOND;
    for (policy, expected) in [
        (ScalePolicy::between(0, 0), "max: zero"),
        (ScalePolicy::between(3, 2), "min: above_max (limit 2)"),
        (policy().slots(0), "slots: zero"),
        (policy().step(0), "step: zero"),
        (policy().use_of_slots(0.0), "use_of_slots: out_of_range: 0"),
        (policy().use_of_slots(f64::NAN), "use_of_slots: out_of_range: NaN"),
        (policy().target_wait(Duration::ZERO), "target_wait: zero"),
        (policy().idle(long), "idle: too_large (limit 604800)"),
    ] {
        assert_eq!(Autoscaler::new(policy).unwrap_err().faults()[0].to_string(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever it is shown, it stays within its bounds and its step, and leaves nobody without an agent.
    #[test]
    fn bounds_hold_whatever_the_load(
        looks in prop::collection::vec((0..100_000_u64, 0..1_000_u64, 0..10_000_u64, 0..u64::MAX, -50..200_i64), 1..80),
        min in 0..3_u32, more in 1..30_u32, step in 1..10_u32, start in 0..50_u32,
    ) {
        let max = min + more;
        let policy = ScalePolicy::between(min, max).step(step).idle(SECOND * 60).down_window(SECOND * 60);
        let mut scaler = Autoscaler::new(policy).unwrap();
        let (mut at, mut agents) = (1_000_000_000_i64, start);
        for (queued, running, oldest, ended, by) in looks {
            at += by * 1_000_000;
            let load = Load { at: Timestamp::from_micros(at), queued, running, oldest: SECOND * u32::try_from(oldest).unwrap(), ended };
            let decision = scaler.decide(&load, agents);
            scaler.carried_out();
            prop_assert!((min..=max).contains(&decision.agents));
            if (min..=max).contains(&agents) {
                prop_assert!(decision.agents.abs_diff(agents) <= step);
            }
            prop_assert!(queued == 0 || decision.agents > 0, "work and nobody to do it");
            agents = decision.agents;
        }
    }
}
