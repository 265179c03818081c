//! Schedules fire each of their times once, whatever nodes and clocks do.
#![expect(clippy::unwrap_used, reason = "what a test sets up does not fail")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_core::job::{JobKind, JobSpec};
use hodei_core::store::{
    Consistency, Coordination, JobStore, MemoryStore, Policies, Query, Schedule, Scope, Store,
};
use hodei_core::testkit::fault::{Faults, Faulty};
use hodei_core::{ErrorKind, ManualClock, Name, Tenant, Timestamp};
use hodei_sched::cron::{CronJob, CronRule, Misfire};
use hodei_sched::{Orchestrator, OrchestratorBuilder};
use proptest::prelude::*;

const BEAT: Duration = Duration::from_secs(2);
const MINUTE: i64 = 60_000_000;
/// A full hour.
const START: i64 = 1_750_000_000_000_000 / (60 * MINUTE) * (60 * MINUTE);

struct World {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(START)));
        let store = Arc::new(MemoryStore::with_clock(Arc::<ManualClock>::clone(&clock)));
        Self { clock, store }
    }

    fn node(&self, name: &str) -> OrchestratorBuilder {
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        Orchestrator::builder().shared_store(store).node(name).heartbeat(BEAT, BEAT * 3)
    }

    fn to_minute(&self, minute: i64) {
        self.clock.set(Timestamp::from_micros(START + minute * MINUTE));
    }

    /// Lets every node look several times at what time it is.
    async fn settle(&self) {
        tokio::time::sleep(BEAT * 4).await;
    }

    /// The minutes for which each schedule has fired, in order. That a pair comes once is asserted.
    async fn fired(&self) -> BTreeMap<String, Vec<i64>> {
        let mut ids = Vec::new();
        let mut query = Some(Query::new().oldest_first().limit(Query::LIMIT_MAX));
        while let Some(next) = query.take() {
            let page = self.store.query(&Scope::All, next.clone()).await.unwrap();
            ids.extend(page.jobs.iter().map(|job| job.id));
            query = page.next.map(|cursor| next.after(cursor));
        }
        let jobs = self.store.get_many(&Scope::All, ids, Consistency::Latest).await.unwrap();
        let mut fired: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for job in jobs.into_iter().flatten() {
            let (name, at) = Schedule::of_key(&job.unique.expect("a key")).expect("a fire time");
            fired.entry(name.as_str().to_owned()).or_default().push((at.as_micros() - START) / MINUTE);
        }
        for minutes in fired.values_mut() {
            minutes.sort_unstable();
            assert!(minutes.windows(2).all(|pair| pair[0] < pair[1]), "{minutes:?}");
        }
        fired
    }

    /// A node with two dispatchers that fires each minute, and its agent: by its name it falls to the first one, which alone
    /// looks for work therefore.
    async fn node_of_two(&self, faults: &Faults) -> (Orchestrator, AgentHandle) {
        let store = Arc::new(Faulty::new((*self.store).clone(), faults.clone()));
        let node = Orchestrator::builder().shared_store(store).node("node").heartbeat(BEAT, BEAT * 3);
        let node = node.dispatchers(2).cron(job("minutely", all_missed("* * * * *"))).start().await.unwrap();
        let agent = Agent::builder(node.gateway()).name("a").handler(nothing).start().await.unwrap();
        self.settle().await;
        (node, agent)
    }

    async fn minutes(&self, schedule: &str) -> Vec<i64> {
        self.fired().await.remove(schedule).unwrap_or_default()
    }
}

fn spec() -> JobSpec {
    JobSpec::command(["true"]).build().expect("a valid spec")
}

fn job(name: &str, rule: CronRule) -> CronJob {
    CronJob::new(name, rule, spec())
}

fn all_missed(expression: &str) -> CronRule {
    CronRule::new(expression).misfire(Misfire::CatchUp { at_most: CronRule::FIRES_MAX })
}

fn name(text: &'static str) -> Name {
    Name::literal(text)
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Nothing {}

impl JobKind for Nothing {
    const KIND: &'static str = "nothing";
}

async fn nothing(_: Context<()>, _: Nothing) {}

/// A term lives by itself, whatever becomes of the dispatcher in whose name it was taken.
#[tokio::test(start_paused = true)]
async fn schedules_fire_on_where_the_first_dispatcher_of_a_node_has_died() {
    let (world, faults) = (World::new(), Faults::new());
    let (node, agent) = world.node_of_two(&faults).await;
    faults.panic();
    for minute in 1..=5 {
        world.to_minute(minute);
        world.settle().await;
    }
    let failed = node.store_failed().await;
    assert!(failed.to_string().contains("the dispatcher node has died"), "{failed}");
    // Nobody leads by then in whose name it could be led on.
    world.to_minute(6);
    tokio::time::sleep(BEAT * 20).await;
    world.to_minute(7);
    world.settle().await;
    let alive = world.store.owners().await.unwrap();
    assert!(alive.iter().all(|living| living.lease.owner.name().as_str() == "node.1"), "{alive:?}");
    assert_eq!(world.minutes("minutely").await, (1..=7).collect::<Vec<_>>());
    agent.kill().await;
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_nodes_fire_each_time_once_through_clock_steps_and_a_change_of_the_leader() {
    let world = World::new();
    let a = world.node("a").cron(job("minutely", all_missed("* * * * *"))).start().await.unwrap();
    let b = world.node("b").cron(job("fives", all_missed("*/5 * * * *"))).start().await.unwrap();
    for minute in [1, 2, 3, -90, 4, 200, 150, 201] {
        world.to_minute(minute);
        world.settle().await;
    }
    assert_eq!(world.minutes("minutely").await, (1..=201).collect::<Vec<_>>());
    a.stop().await;
    world.to_minute(260);
    world.settle().await;
    drop(b);
    world.to_minute(300);
    world.settle().await;
    let c = world.node("c").start().await.unwrap();
    world.settle().await;
    let fired = world.fired().await;
    assert_eq!(fired["minutely"], (1..=300).collect::<Vec<_>>());
    assert_eq!(fired["fives"], (1..=60).map(|n| n * 5).collect::<Vec<_>>());
    c.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_while_no_node_ran_goes_as_each_rule_says() {
    let world = World::new();
    let rules =
        [("skip", Misfire::Skip), ("once", Misfire::FireOnce), ("two", Misfire::CatchUp { at_most: 2 })];
    let start = async |node: &str| {
        let jobs = rules.map(|(name, misfire)| job(name, CronRule::new("0 * * * *").misfire(misfire)));
        jobs.into_iter().fold(world.node(node), OrchestratorBuilder::cron).start().await.unwrap()
    };
    let first = start("first").await;
    world.to_minute(60);
    world.settle().await;
    first.shutdown().await;
    world.to_minute(5 * 60 + 30);
    let second = start("second").await;
    world.settle().await;
    world.to_minute(6 * 60);
    world.settle().await;
    let fired = world.fired().await;
    assert_eq!(fired["skip"], [60, 360]);
    assert_eq!(fired["once"], [60, 300, 360]);
    assert_eq!(fired["two"], [60, 240, 300, 360]);
    second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_is_paused_resumed_changed_and_removed_while_nodes_run() {
    let world = World::new();
    let node = world.node("a").cron(job("it", all_missed("* * * * *"))).start().await.unwrap();
    let (schedules, tenant) = (node.schedules(), Tenant::default());
    let step = async |minute| {
        world.to_minute(minute);
        world.settle().await;
    };
    step(2).await;
    schedules.pause(&tenant, &name("it")).await.unwrap();
    step(10).await;
    schedules.set(job("it", all_missed("* * * * *"))).await.unwrap();
    step(12).await;
    assert_eq!(world.minutes("it").await, [1, 2], "setting it again does not resume it");
    assert!(schedules.list(&Scope::All).await.unwrap()[0].paused);
    schedules.resume(&tenant, &name("it")).await.unwrap();
    schedules.resume(&tenant, &name("it")).await.unwrap();
    step(14).await;
    assert_eq!(world.minutes("it").await, [1, 2, 13, 14], "what came meanwhile is left out");
    schedules.set(job("it", all_missed("*/10 * * * *"))).await.unwrap();
    step(33).await;
    assert_eq!(world.minutes("it").await, [1, 2, 13, 14, 20, 30]);
    let listed = schedules.list(&Scope::All).await.unwrap();
    assert_eq!(listed[0].next, Some(Timestamp::from_micros(START + 40 * MINUTE)));
    assert!(schedules.remove(&tenant, &name("it")).await.unwrap());
    step(60).await;
    schedules.set(job("it", all_missed("*/10 * * * *"))).await.unwrap();
    world.to_minute(20);
    world.settle().await;
    step(71).await;
    assert_eq!(world.minutes("it").await, [1, 2, 13, 14, 20, 30, 70], "set anew, it begins anew");
    assert_eq!(schedules.pause(&tenant, &name("no")).await.unwrap_err().kind(), ErrorKind::NotFound);
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_not_understood_is_listed_and_holds_up_no_other() {
    let world = World::new();
    for (name, rule) in
        [("bare", "*/2 * * * *"), ("broken", "once in a while"), ("newer", "{\"calendar\":1}")]
    {
        let row = Schedule {
            tenant: Tenant::default(),
            name: Name::new(name).unwrap(),
            rule: rule.into(),
            spec: Arc::new(spec()),
            last_fired: None,
        };
        world.store.set_schedule(row).await.unwrap();
    }
    let node = world.node("a").start().await.unwrap();
    world.settle().await;
    world.to_minute(2);
    world.settle().await;
    let fired = world.fired().await;
    assert_eq!((fired.len(), fired["bare"].as_slice()), (1, &[2][..]));
    let listed = node.schedules().list(&Scope::All).await.unwrap();
    let codes: Vec<_> =
        listed.iter().map(|row| row.rule.as_ref().err().map(|error| error.faults()[0].code)).collect();
    assert_eq!(codes, [None, Some("invalid"), Some("not_understood")]);
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_cannot_be_is_refused() {
    let world = World::new();
    let wrong = job("it", CronRule::new("61 * * * *").zone("Nowhere"));
    let error = world.node("a").cron(wrong.clone()).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("cron.it.cron: invalid")
            && error.to_string().contains("cron.it.zone: unknown")
    );
    let node = world.node("a").start().await.unwrap();
    assert_eq!(node.schedules().set(wrong).await.unwrap_err().kind(), ErrorKind::Invalid);
    let never = node.schedules().set(job("it", CronRule::new("0 0 30 2 *"))).await.unwrap_err();
    assert_eq!((never.faults()[0].field.as_str(), never.faults()[0].code), ("cron", "never_fires"));
    assert_eq!(node.schedules().list(&Scope::All).await.unwrap().len(), 0);
    node.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Nodes come, go and die, the clock steps anywhere: with a rule that makes up for everything, each minute up to the
    /// latest that the clock showed while a node was there fires once.
    #[test]
    fn each_time_fires_once_whatever_happens(
        steps in prop::collection::vec((0..4_usize, 0..3_usize, -30..40_i64), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let world = World::new();
            let mut nodes: [Option<Orchestrator>; 3] = [const { None }; 3];
            let start = async |n: usize| {
                let rule = all_missed("* * * * *").jitter(Duration::from_secs(20));
                world.node(&format!("node-{n}")).cron(job("it", rule)).start().await.unwrap()
            };
            nodes[0] = Some(start(0).await);
            let (mut now, mut latest) = (0, 0);
            for (what, n, by) in steps {
                match (what, nodes[n].take()) {
                    (0, Some(node)) => node.stop().await,
                    (1, Some(node)) => drop(node),
                    (_, None) => nodes[n] = Some(start(n).await),
                    (_, alive) => nodes[n] = alive,
                }
                now += by;
                // Half past, when the jitter of the minute is over.
                world.clock.set(Timestamp::from_micros(START + now * MINUTE + MINUTE / 2));
                world.settle().await;
                if nodes.iter().any(Option::is_some) {
                    latest = latest.max(now);
                }
            }
            assert_eq!(world.minutes("it").await, (1..=latest).collect::<Vec<_>>());
        });
    }
}

/// Who leads, by duty, as a snapshot shows it.
async fn leaders(node: &Orchestrator) -> BTreeMap<String, String> {
    let owners = node.snapshot().await.unwrap().store.unwrap().owners;
    let led = owners.iter().flat_map(|of| {
        of.duties.iter().map(|duty| (duty.as_str().to_owned(), of.lease.owner.name().as_str().to_owned()))
    });
    led.collect()
}

/// The duties stayed with the dead dispatcher, whose term went on and who was no longer among those who are alive.
#[tokio::test(start_paused = true)]
async fn a_node_whose_first_dispatcher_has_died_is_seen_to_lead() {
    let (world, faults) = (World::new(), Faults::new());
    let (node, agent) = world.node_of_two(&faults).await;
    let both = |name: &str| ["cron", "maintain"].map(|duty| (duty.to_owned(), name.to_owned())).into();
    assert_eq!(leaders(&node).await, both("node"));
    faults.panic();
    node.submit(hodei_core::job::NewJob::new(spec())).await.unwrap();
    let died = node.store_failed().await;
    assert!(died.to_string().contains("the dispatcher node has died"), "{died}");
    world.settle().await;
    // Until its life is over somebody may be at work on what it held.
    world.clock.set(Timestamp::from_micros(START + 20_000_000));
    world.settle().await;
    assert_eq!(leaders(&node).await, both("node.1"));
    agent.kill().await;
    node.stop().await;
}

/// A call that was under way when the node retired, or began while it did, took the term for it again, and the next node
/// waited for its end.
#[tokio::test]
async fn a_node_that_has_ended_leads_nothing() {
    let (beat, ttl) = (Duration::from_millis(20), Duration::from_secs(60));
    for (held, begins) in (0..6).map(|held| (held, true)).chain((0..12).map(|held| (held, false))) {
        let (inner, faults) = (MemoryStore::new(), Faults::new());
        let store = Arc::new(Faulty::new(inner.clone(), faults.clone()));
        let node = Orchestrator::builder().shared_store(store).node("a").heartbeat(beat, ttl).dispatchers(2);
        let node = node.cron(job("minutely", all_missed("* * * * *"))).start().await.unwrap();
        while leaders(&node).await.len() < 2 {
            tokio::time::sleep(beat).await;
        }
        let before = faults.calls();
        faults.hold(held);
        // Else it may be one of those with which the node says goodbye.
        while begins && faults.calls() <= before + held {
            tokio::time::sleep(beat / 4).await;
        }
        let mut ending = tokio::spawn(async move { node.shutdown().await });
        // It waits for the call, or has ended without.
        let ended = tokio::time::timeout(beat * 5, &mut ending).await;
        faults.heal();
        if ended.is_err() {
            tokio::time::timeout(ttl, ending).await.expect("it ends").unwrap();
        }
        // What has ended may still have a call under way.
        tokio::time::sleep(beat).await;
        let other = inner.register(&hodei_core::OwnerId::new("b").unwrap(), ttl).await.unwrap();
        for duty in ["maintain", "cron"] {
            let term = inner.take_term(&Name::literal(duty), &other, ttl).await.unwrap();
            assert!(term.is_some(), "{duty} is led by a node that has ended, call {held} {begins}");
        }
    }
}
