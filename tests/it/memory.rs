//! A process that needs more memory than it asks for gets it, also when the node that saw it fail is gone.

use std::path::Path;
use std::time::Duration;

use hodei_agent::{Agent, AgentHandle, ProcessExecutor};
use hodei_core::job::{
    Backoff, Exit, FailureClass, Job, JobSpec, NewJob, Outcome, Resources, RetryPolicy, State,
};
use hodei_core::store::Scope;
use hodei_core::{JobId, Name};
use hodei_sched::{Explanation, Orchestrator};
use hodei_store_redb::RedbStore;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Has 50 MiB in a buffer until somebody reads them, and then gives back how much had been set aside.
const NEEDS_FIFTY: &str = "dd if=/dev/zero bs=52428800 count=1 status=none | (sleep 2; cat > /dev/null); \
                           printf '{\"memory\":\"%s\"}' \"$HODEI_MEMORY\" > \"$HODEI_OUTPUT\"";

fn job(attempts: u32, wait: Duration) -> NewJob {
    let policy = RetryPolicy::attempts(attempts).backoff(Backoff::Fixed(wait)).exact();
    let spec = JobSpec::command(["/bin/sh", "-c", NEEDS_FIFTY]).name("fifty").output("memory");
    let spec = spec.resources(Resources::none().memory(16 * MIB)).retry(policy).build();
    NewJob::new(spec.expect("a valid spec"))
}

async fn node(file: &Path, mib: u64) -> (Orchestrator, AgentHandle) {
    let store = RedbStore::open(file).expect("the store opens");
    let hodei = Orchestrator::builder().store(store).start().await.expect("the node starts");
    let commands = ProcessExecutor::new().hold_to_memory();
    let capacity = Resources::none().memory(mib * MIB);
    let agent = Agent::builder(hodei.gateway()).name("worker").capacity(capacity).commands(commands);
    (hodei, agent.start().await.expect("the agent starts"))
}

/// Waits until a job is as is wanted.
async fn comes_to(hodei: &Orchestrator, job: JobId, wanted: fn(&Job) -> bool) -> Job {
    let came = async {
        loop {
            let job = hodei.get(job).await.expect("the job is there");
            if wanted(&job) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, came).await.expect("it comes to that")
}

async fn ends(hodei: &Orchestrator, job: JobId) -> Job {
    tokio::time::timeout(PATIENCE, hodei.wait(job)).await.expect("it ends").expect("it is there")
}

fn given(job: &Job) -> &str {
    let output = job.output().and_then(hodei_core::job::Output::inline).expect("an output");
    std::str::from_utf8(output).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ran_out_of_memory_is_given_twice_as_much_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("jobs.redb");
    let (hodei, agent) = node(&file, 1_024).await;
    let id = hodei.submit(job(3, Duration::from_secs(2))).await.expect("submitted");
    let failed = comes_to(&hodei, id, |job| job.state == State::Pending && job.attempt == 1).await;
    let settled = failed.settled.as_deref().expect("a run has ended");
    let Outcome::Failed(failure) = &settled.outcome else { panic!("it failed: {settled:?}") };
    assert_eq!((failure.class, failure.exit), (FailureClass::OutOfMemory, Some(Exit::Signal(9))));
    assert_eq!(failure.memory(), Some(16 * MIB), "{failure}");
    agent.shutdown().await;
    hodei.shutdown().await;
    drop(hodei);

    // The next node has seen nothing of it: the store says what was not enough.
    let (hodei, agent) = node(&file, 1_024).await;
    let ended = ends(&hodei, id).await;
    assert_eq!((ended.state, ended.attempt), (State::Succeeded, 3), "16, 32 and 64 MiB: {ended:?}");
    assert_eq!(given(&ended), r#"{"memory":"67108864"}"#);

    // Other jobs of the kind begin with what was needed, though they may fail never.
    let next = hodei.submit(job(1, Duration::ZERO)).await.expect("submitted");
    let ended = ends(&hodei, next).await;
    assert_eq!((ended.state, given(&ended)), (State::Succeeded, r#"{"memory":"67108864"}"#));
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_asks_for_more_than_there_is_and_what_it_lacks_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let (hodei, agent) = node(&directory.path().join("jobs.redb"), 40).await;
    let first = hodei.submit(job(3, Duration::ZERO)).await.expect("submitted");
    let ended = ends(&hodei, first).await;
    let Some(Outcome::Failed(failure)) = ended.outcome() else { panic!("it cannot succeed: {ended:?}") };
    assert_eq!((ended.attempt, failure.class), (3, FailureClass::OutOfMemory));
    assert_eq!(failure.memory(), Some(40 * MIB), "all that the worker has");
    // One takes all of the worker, the next one waits for it.
    let running = hodei.submit(job(1, Duration::ZERO)).await.expect("submitted");
    comes_to(&hodei, running, |job| job.state != State::Pending && job.state != State::Scheduled).await;
    let waits = hodei.submit(job(1, Duration::ZERO)).await.expect("submitted");
    let why = hodei.explain(waits).await.expect("an explanation");
    if let Explanation::Grown { asked, wants, asks, why } = &why {
        assert_eq!((*asked, *wants, *asks), (16 * MIB, 128 * MIB, 40 * MIB));
        let Explanation::Busy { worker, resource, .. } = &**why else { panic!("it waits for {why:?}") };
        assert_eq!((worker, &**resource), (&Name::literal("worker"), "memory"));
    } else {
        // Unless the one before has ended already.
        assert!(hodei.get(running).await.expect("the job is there").state.is_terminal(), "{why:?}");
    }
    for job in [running, waits] {
        assert_eq!(ends(&hodei, job).await.state, State::Failed);
    }
    assert_eq!(hodei.limits(&Scope::All).await.expect("they are listed"), []);
    agent.shutdown().await;
    hodei.shutdown().await;
}
