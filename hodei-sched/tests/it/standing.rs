//! How a node stands, why a job waits, and what may be changed while it runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hodei_agent::{Agent, AgentHandle, Context, Outcome};
use hodei_core::job::{JobKind, JobSpec, NewJob, Priority, Resources, State};
use hodei_core::store::{
    Before, Limit, LimitOf, MemoryStore, Policies, QueuePolicy, Rate, Scope, SubmitOptions,
};
use hodei_core::testkit::history::{Call, Entry, Recorder, RecordingStore, Reply};
use hodei_core::{ErrorKind, Name, Tenant};
use hodei_sched::machine::placement::{Rule, Selector};
use hodei_sched::machine::{Policy, SchedulerConfig};
use hodei_sched::{Explanation, Orchestrator};
use tokio::sync::Semaphore;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Work {}

impl JobKind for Work {
    const KIND: &'static str = "work";
}

/// Ends when somebody lets it.
async fn work(context: Context<Arc<Semaphore>>, _: Work) -> Outcome {
    let doors = Arc::clone(context.state());
    tokio::select! {
        door = doors.acquire() => door.expect("the doors stay").forget(),
        _ = context.cancelled() => return Outcome::Cancel,
    }
    Outcome::Done(bytes::Bytes::new())
}

fn job(level: u8) -> NewJob {
    let level = Priority::new(level).expect("a level");
    let spec = JobSpec::of(&Work {}).expect("arguments").priority(level);
    NewJob::new(spec.build().expect("a valid spec"))
}

async fn agent(hodei: &Orchestrator, doors: &Arc<Semaphore>) -> AgentHandle {
    let agent =
        Agent::builder(hodei.gateway()).name("worker").slots(1).state(Arc::clone(doors)).handler(work);
    let agent = agent.start().await.expect("the agent starts");
    while hodei.workers().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    agent
}

/// Waits until a job is in a state.
async fn reaches(hodei: &Orchestrator, job: hodei_core::JobId, state: State) {
    while hodei.get(job).await.expect("the job is there").state != state {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_job_that_waits_is_told_for_what_and_a_snapshot_shows_who_is_busy() {
    let doors = Arc::new(Semaphore::new(0));
    let hodei = Orchestrator::builder().start().await.expect("the node starts");
    let agent = agent(&hodei, &doors).await;
    let first = hodei.submit(job(32)).await.expect("submitted");
    reaches(&hodei, first, State::Running).await;
    let waits = hodei.submit(job(32)).await.expect("submitted");
    hodei.submit(job(40)).await.expect("submitted");
    let expected = Explanation::Busy {
        worker: Name::literal("worker"),
        resource: "slots".to_owned(),
        needs: 1,
        free: 0,
        before: Before { lane: 1, all: 1, more: false },
    };
    assert_eq!(hodei.explain(waits).await.expect("an explanation"), expected);
    let snapshot = hodei.snapshot().await.expect("a snapshot");
    let loads: Vec<(u32, u32)> = snapshot.workers.iter().map(|load| (load.slots, load.jobs)).collect();
    assert_eq!(loads, [(1, 1)]);
    let class = &snapshot.running[0];
    assert_eq!((class.runs.to_string(), class.jobs), ("handler work".to_owned(), 1));
    assert_eq!((snapshot.claims.asked, snapshot.claims.came), (1, 1));
    doors.add_permits(3);
    assert_eq!(hodei.wait(waits).await.expect("it ends").state, State::Succeeded);
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_shows_what_is_ready_how_old_it_is_and_which_limits_are_in_use() {
    let doors = Arc::new(Semaphore::new(0));
    let of = |n: u32| LimitOf::Key(Tenant::default(), Name::new(format!("key-{n}")).expect("a name"));
    let limits = [(1, 10), (2, 2), (3, 5)].map(|(n, max)| Limit::new(of(n), max));
    let hodei = Orchestrator::builder().limit(limits[0].clone()).limit(limits[1].clone());
    let hodei = hodei.limit(limits[2].clone()).start().await.expect("the node starts");
    let agent = agent(&hodei, &doors).await;
    let spec = JobSpec::of(&Work {}).expect("arguments").limited_by("key-1").limited_by("key-2");
    let first = hodei.submit(NewJob::new(spec.build().expect("a valid spec"))).await.expect("submitted");
    reaches(&hodei, first, State::Running).await;
    let mut oldest = None;
    for (queue, level) in [("mail", 40), ("mail", 40), ("bulk", 10)] {
        let level = Priority::new(level).expect("a level");
        let spec = JobSpec::of(&Work {}).expect("arguments").queue(queue).priority(level);
        let job = hodei.submit(NewJob::new(spec.build().expect("a valid spec"))).await.expect("submitted");
        let since = hodei.get(job).await.expect("it is there").eligible_at;
        oldest.get_or_insert(since);
    }
    let store = hodei.snapshot().await.expect("a snapshot").store.expect("the store answers");
    let queues = store.queues.iter().map(|load| (load.queue.as_str(), load.level.level(), load.jobs));
    assert_eq!(queues.collect::<Vec<_>>(), [("mail", 40, 2), ("bulk", 10, 1)]);
    assert_eq!(Some(store.queues[0].since), oldest);
    assert!(store.now >= store.queues[0].since && store.counts.of(State::Running) == 1);
    let used: Vec<_> = store.limits.iter().map(|limit| (limit.limit.of.clone(), limit.in_use)).collect();
    assert_eq!(used, [(of(2), 1), (of(1), 1)], "the fullest first, without the one that nobody uses");
    doors.add_permits(4);
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test]
async fn the_widest_limit_that_is_used_up_is_named() {
    let doors = Arc::new(Semaphore::new(0));
    let hodei = Orchestrator::builder().start().await.expect("the node starts");
    let agent = agent(&hodei, &doors).await;
    let (store, tenant) = (hodei.shared_store(), Tenant::default);
    let first = hodei.submit(job(32)).await.expect("submitted");
    reaches(&hodei, first, State::Running).await;
    let queue = LimitOf::Queue(tenant(), Name::literal("default"));
    store.set_limit(Limit::new(queue.clone(), 1)).await.expect("set");
    let waits = hodei.submit(job(32)).await.expect("submitted");
    let narrowing = [queue, LimitOf::Tenant(tenant()), LimitOf::All];
    for of in narrowing {
        store.set_limit(Limit::new(of.clone(), 1)).await.expect("set");
        let why = hodei.explain(waits).await.expect("an explanation");
        assert_eq!(why, Explanation::LimitReached(of.clone()));
        assert_eq!(why.to_string(), format!("the limit of {of} is used up"));
    }
    doors.add_permits(2);
    reaches(&hodei, first, State::Succeeded).await;
    // What comes free wakes the node.
    reaches(&hodei, waits, State::Succeeded).await;
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test]
async fn turns_gangs_and_queues_of_others_are_explained() {
    let doors = Arc::new(Semaphore::new(0));
    let hodei = Orchestrator::builder().queues(["default"]).start().await.expect("the node starts");
    let agent = agent(&hodei, &doors).await;
    let spec = || JobSpec::of(&Work {}).expect("arguments");
    let job = |spec: hodei_core::job::JobSpecBuilder| NewJob::new(spec.build().expect("a valid spec"));
    let first = hodei.submit(job(spec().sequence("line"))).await.expect("submitted");
    reaches(&hodei, first, State::Running).await;
    let next = hodei.submit(job(spec().sequence("line"))).await.expect("submitted");
    let expected = Explanation::WaitsForTurn(Name::literal("line"), first);
    assert_eq!(hodei.explain(next).await.expect("an explanation"), expected);
    let third = hodei.submit(job(spec().sequence("line"))).await.expect("submitted");
    hodei.cancel(next).await.expect("it is cancelled");
    let why = hodei.explain(third).await.expect("an explanation");
    assert_eq!(why, expected, "who ended before its turn lets nobody by");
    let gang = hodei.submit(job(spec().resources(Resources::none().workers(3)))).await.expect("submitted");
    let why = hodei.explain(gang).await.expect("an explanation");
    assert_eq!(why, Explanation::TooFewWorkers { needs: 3, there: 1 });
    let elsewhere = hodei.submit(job(spec().queue("elsewhere"))).await.expect("submitted");
    assert_eq!(hodei.explain(elsewhere).await.expect("an explanation"), Explanation::NotServed);
    doors.add_permits(3);
    assert_eq!(hodei.wait(third).await.expect("it ends").state, State::Succeeded);
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test]
async fn a_policy_holds_from_the_moment_it_is_set() {
    let doors = Arc::new(Semaphore::new(100));
    let hodei = Orchestrator::builder().start().await.expect("the node starts");
    let agent = agent(&hodei, &doors).await;
    let elsewhere = Rule::anywhere().require(Selector::is("zone", "moon"));
    let policy = Policy::default().rule(Name::literal("default"), elsewhere);
    hodei.set_policy(policy).await.expect("it is set");
    let job = hodei.submit(job(32)).await.expect("submitted");
    let why = hodei.explain(job).await.expect("an explanation");
    assert!(matches!(why, Explanation::RuledOut(..)), "{why}");
    hodei.set_policy(Policy::default()).await.expect("it is set");
    assert_eq!(hodei.wait(job).await.expect("it ends").state, State::Succeeded);
    agent.shutdown().await;
    hodei.shutdown().await;
    assert!(hodei.set_policy(Policy::default()).await.is_err());
}

#[tokio::test]
async fn an_urgent_job_takes_the_place_of_one_that_runs() {
    let doors = Arc::new(Semaphore::new(0));
    let mut config = SchedulerConfig::default();
    config.preempt = Some(20);
    let hodei = Orchestrator::builder().scheduler(config).start().await.expect("the node starts");
    let agent = agent(&hodei, &doors).await;
    let low = hodei.submit(job(10)).await.expect("submitted");
    reaches(&hodei, low, State::Running).await;
    let urgent = hodei.submit(job(50)).await.expect("submitted");
    reaches(&hodei, urgent, State::Running).await;
    assert_eq!(hodei.get(low).await.expect("the job is there").state, State::Pending);
    doors.add_permits(2);
    assert_eq!(hodei.wait(low).await.expect("it ends").state, State::Succeeded);
    agent.shutdown().await;
    hodei.shutdown().await;
}

/// Ends at once.
async fn quick(_: Context<()>, _: Work) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatchers_beside_each_other_run_every_job_once() {
    let hodei = Orchestrator::builder().dispatchers(3).start().await.expect("the node starts");
    let mut agents = Vec::new();
    for n in 0..6 {
        let agent = Agent::builder(hodei.gateway()).name(format!("worker-{n}")).slots(4).handler(quick);
        agents.push(agent.start().await.expect("the agent starts"));
    }
    let jobs: Vec<NewJob> = (0..5_000).map(|_| job(32)).collect();
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    hodei.submit_many(jobs, SubmitOptions::each()).await.expect("submitted");
    for id in ids {
        let job = hodei.wait(id).await.expect("it ends");
        // Claimed, and ended in one report: each a change, and none more.
        assert_eq!((job.state, job.attempt, job.lost_count), (State::Succeeded, 1, 0));
    }
    assert_eq!(hodei.snapshot().await.expect("a snapshot").workers.len(), 6);
    for agent in agents {
        agent.shutdown().await;
    }
    hodei.shutdown().await;
}

/// So soon a node begins what may run again: long before it would have asked its store by itself.
const SOON: Duration = Duration::from_secs(20);

async fn runs_soon(hodei: &Orchestrator, job: hodei_core::JobId) {
    let running = reaches(hodei, job, State::Running);
    tokio::time::timeout(SOON, running).await.expect("nobody woke the node");
}

#[tokio::test]
async fn limits_of_every_kind_are_set_shown_and_removed_while_the_node_runs() {
    let doors = Arc::new(Semaphore::new(0));
    let first = Limit::tenant(Tenant::default(), 0);
    let hodei = Orchestrator::builder().limit(first.clone()).start().await.expect("the node starts");
    let agent = agent(&hodei, &doors).await;
    let (tenant, queue, key) = (Tenant::default, || Name::literal("default"), || Name::literal("key"));
    let spec = JobSpec::of(&Work {}).expect("arguments").limited_by("key").build().expect("a valid spec");
    let job = hodei.submit(NewJob::new(spec.clone())).await.expect("submitted");
    let why = hodei.explain(job).await.expect("an explanation");
    assert_eq!(why, Explanation::LimitReached(first.of.clone()), "set before anything was claimed");
    let limits = [Limit::all(1), Limit::queue(tenant(), queue(), 1), Limit::key(tenant(), key(), 1)];
    for limit in limits.clone() {
        hodei.set_limit(limit).await.expect("set");
    }
    assert!(hodei.remove_limit(&first.of).await.expect("removed"));
    assert!(!hodei.remove_limit(&first.of).await.expect("removed"), "once");
    runs_soon(&hodei, job).await;
    let shown = hodei.limits(&Scope::All).await.expect("they are listed");
    assert_eq!(shown.iter().map(|shown| shown.limit.clone()).collect::<Vec<_>>(), limits);
    assert!(shown.iter().all(|shown| shown.in_use == 1));
    let waits = hodei.submit(NewJob::new(spec)).await.expect("submitted");
    let why = hodei.explain(waits).await.expect("an explanation");
    assert_eq!(why, Explanation::LimitReached(LimitOf::All));
    doors.add_permits(2);
    assert_eq!(hodei.wait(waits).await.expect("it ends").state, State::Succeeded);
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test]
async fn of_ten_thousand_limits_only_those_of_the_job_are_read_to_explain_it() {
    let recorder = Recorder::new();
    let store = Arc::new(RecordingStore::new(MemoryStore::new(), recorder.clone()));
    for n in 0..10_000 {
        let key = Name::new(format!("key-{n}")).expect("a name");
        store.set_limit(Limit::key(Tenant::default(), key, u32::from(n != 77))).await.expect("set");
    }
    let hodei = Orchestrator::builder().shared_store(store).start().await.expect("the node starts");
    let spec = JobSpec::of(&Work {}).expect("arguments").limited_by("key-1").limited_by("key-77");
    let job = hodei.submit(NewJob::new(spec.build().expect("a valid spec"))).await.expect("submitted");
    let full = LimitOf::Key(Tenant::default(), Name::literal("key-77"));
    assert_eq!(hodei.explain(job).await.expect("an explanation"), Explanation::LimitReached(full));
    let read = recorder.take().into_iter().filter_map(|entry| match entry {
        Entry::Returned { reply: Reply::Limits { limits }, .. } => Some(limits.len()),
        _ => None,
    });
    assert_eq!(read.collect::<Vec<_>>(), [2]);
    hodei.shutdown().await;
}

#[tokio::test]
async fn of_a_thousand_queues_only_that_of_the_job_is_read_to_explain_and_to_pause_it() {
    let recorder = Recorder::new();
    let store = Arc::new(RecordingStore::new(MemoryStore::new(), recorder.clone()));
    let (tenant, named) = (Tenant::default(), |n: u32| Name::new(format!("queue-{n}")).expect("a name"));
    for n in 0..1_000 {
        let policy = QueuePolicy { tenant: tenant.clone(), queue: named(n), paused: n != 77, weight: 1 + n };
        store.set_queue(policy).await.expect("set");
    }
    let hodei = Orchestrator::builder().shared_store(store).start().await.expect("the node starts");
    let spec = JobSpec::of(&Work {}).expect("arguments").queue("queue-77");
    let job = hodei.submit(NewJob::new(spec.build().expect("a valid spec"))).await.expect("submitted");
    assert_ne!(hodei.explain(job).await.expect("an explanation"), Explanation::Paused);
    hodei.pause_queue(&tenant, &named(77)).await.expect("paused");
    assert_eq!(hodei.explain(job).await.expect("an explanation"), Explanation::Paused);
    hodei.resume_queue(&tenant, &named(77)).await.expect("resumed");
    let (mut reads, mut read) = (HashSet::new(), Vec::new());
    for entry in recorder.take() {
        match entry {
            Entry::Called { call, what: Call::Queues { .. } } => drop(reads.insert(call)),
            Entry::Returned { call, reply: Reply::Tenants { tenants } } if reads.contains(&call) => {
                read.push(tenants.len());
            }
            _ => {}
        }
    }
    assert_eq!(read, [1; 4]);
    let queues = hodei.queues(&Scope::All).await.expect("they are listed");
    let ours = queues.iter().find(|policy| policy.queue == named(77)).expect("it is there");
    assert_eq!((ours.paused, ours.weight), (false, 78), "it keeps its weight");
    hodei.shutdown().await;
}

#[tokio::test]
async fn a_rate_is_explained_and_lets_the_next_one_through_by_itself() {
    let doors = Arc::new(Semaphore::new(2));
    let hodei = Orchestrator::builder().start().await.expect("the node starts");
    let agent = agent(&hodei, &doors).await;
    let (tenant, per) = (Tenant::default(), Duration::from_secs(1));
    hodei.set_limit(Limit::paced(LimitOf::Tenant(tenant.clone()), Rate::new(1, per))).await.expect("set");
    let first = hodei.submit(job(32)).await.expect("submitted");
    assert_eq!(hodei.wait(first).await.expect("it ends").state, State::Succeeded);
    let waits = hodei.submit(job(32)).await.expect("submitted");
    let shown = hodei.limits(&Scope::All).await.expect("they are listed");
    let opens_at = Rate::new(1, per).opens_at(shown[0].spent, 1);
    let why = hodei.explain(waits).await.expect("an explanation");
    assert_eq!(why, Explanation::RateReached(opens_at));
    assert_eq!(why.to_string(), format!("its rate is used up until {opens_at}"));
    let ends = tokio::time::timeout(SOON, hodei.wait(waits)).await.expect("nobody came back");
    let ended = ends.expect("it ends");
    assert_eq!(ended.state, State::Succeeded);
    assert!(ended.started_at.is_some_and(|at| at >= opens_at));
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test]
async fn a_queue_is_paused_and_resumed_and_keeps_its_weight() {
    let doors = Arc::new(Semaphore::new(1));
    let hodei = Orchestrator::builder().start().await.expect("the node starts");
    let agent = agent(&hodei, &doors).await;
    let (tenant, queue) = (Tenant::default(), Name::literal("default"));
    let policy = QueuePolicy { tenant: tenant.clone(), queue: queue.clone(), paused: false, weight: 3 };
    hodei.set_queue(policy.clone()).await.expect("set");
    hodei.pause_queue(&tenant, &queue).await.expect("paused");
    let paused = QueuePolicy { paused: true, ..policy.clone() };
    assert_eq!(hodei.queues(&Scope::All).await.expect("they are listed"), [paused]);
    let job = hodei.submit(job(32)).await.expect("submitted");
    assert_eq!(hodei.explain(job).await.expect("an explanation"), Explanation::Paused);
    hodei.resume_queue(&tenant, &queue).await.expect("resumed");
    assert_eq!(hodei.queues(&Scope::All).await.expect("they are listed"), [policy]);
    let ends = tokio::time::timeout(SOON, hodei.wait(job)).await.expect("nobody woke the node");
    assert_eq!(ends.expect("it ends").state, State::Succeeded);
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test]
async fn a_policy_that_the_builder_was_given_holds_from_the_first_decision_on() {
    let doors = Arc::new(Semaphore::new(1));
    let selector = Selector::is("zone", "moon");
    let rule = Rule::anywhere().require(selector.clone());
    let policy = Policy::default().rule(Name::literal("default"), rule);
    let hodei = Orchestrator::builder().dispatchers(2).policy(policy).start().await.expect("the node starts");
    let job = hodei.submit(job(32)).await.expect("submitted");
    let agent = agent(&hodei, &doors).await;
    let why = hodei.explain(job).await.expect("an explanation");
    assert_eq!(why, Explanation::RuledOut(Name::literal("worker"), selector));
    hodei.set_policy(Policy::default()).await.expect("the policy is set");
    assert_eq!(hodei.wait(job).await.expect("it ends").state, State::Succeeded);
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test]
async fn a_node_that_could_not_go_by_its_figures_does_not_start() {
    let mut config = SchedulerConfig::default();
    (config.batch_max, config.poll_interval) = (0, Duration::ZERO);
    let builder = Orchestrator::builder().scheduler(config).heartbeat(Duration::MAX, Duration::MAX);
    let error = builder.start().await.expect_err("it does not start");
    assert_eq!(error.kind(), ErrorKind::Config);
    let expected = "heartbeat: ttl_too_short: the ttl must be more than two beats; heartbeat: ttl_too_long (limit 31622400); \
                    batch_max: out_of_range (limit 65536); poll_interval: zero";
    assert_eq!(error.context("why"), Some(expected));
}
