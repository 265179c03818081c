//! What an older system of this kind got wrong.

use hodei_agent::{Agent, Context};
use hodei_core::job::{JobKind, JobSpec, NewJob, Resources, State};
use hodei_core::pipeline::{Pipeline, Step};
use hodei_core::store::{CancelReply, SubmitOptions};
use hodei_sched::{Explanation, Orchestrator};

use crate::agent_by_hand::HandAgent;

async fn hodei() -> Orchestrator {
    Orchestrator::builder().start().await.expect("a node in memory starts")
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Nothing;

impl JobKind for Nothing {
    const KIND: &'static str = "nothing";
}

#[tokio::test]
async fn jobs_submitted_before_any_worker_exists_run_when_one_comes() {
    let hodei = hodei().await;
    let jobs: Vec<NewJob> =
        (0..100).map(|_| NewJob::new(JobSpec::of(&Nothing).unwrap().build().unwrap())).collect();
    let last = jobs[99].id;
    hodei.submit_many(jobs, SubmitOptions::each()).await.unwrap();
    assert_eq!(hodei.explain(last).await.unwrap(), Explanation::NoWorker);
    let handler = |_: Context<()>, _: Nothing| async {};
    let agent = Agent::builder(hodei.gateway()).handler(handler).start().await.unwrap();
    assert_eq!(hodei.wait(last).await.unwrap().state, State::Succeeded);
    while hodei.counts().await.unwrap().of(State::Succeeded) < 100 {
        tokio::task::yield_now().await;
    }
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test]
async fn capacity_is_never_over_assigned() {
    let hodei = hodei().await;
    let spec = JobSpec::command(["true"]).resources(Resources::none().cpu_millis(8_000)).build().unwrap();
    let spec = std::sync::Arc::new(spec);
    let jobs = (0..1_000).map(|_| NewJob::new(std::sync::Arc::clone(&spec))).collect();
    hodei.submit_many(jobs, SubmitOptions::each()).await.unwrap();
    let mut agent = HandAgent::new(hodei.gateway(), 1_000, Resources::none().cpu_millis(16_000));
    let mut number = 0;
    for _ in 0..50 {
        while agent.state.running.is_empty() {
            agent.sync().await.unwrap();
        }
        assert!(agent.state.running.len() <= 2, "{} jobs of 8 cores on 16 cores", agent.state.running.len());
        for running in agent.state.running.clone() {
            number += 1;
            let finish = hodei_core::job::Finish::succeeded(hodei_core::job::Output::none());
            let news = hodei_core::gateway::News::Ended(Box::new(finish));
            agent.report(number, running.job, running.epoch, news);
        }
        agent.sync().await.unwrap();
    }
    assert!(number >= 50);
}

#[tokio::test]
async fn a_cancelled_job_is_not_sent() {
    let hodei = hodei().await;
    let spec = || JobSpec::command(["true"]).build().unwrap();
    let cancelled = hodei.submit(NewJob::new(spec())).await.unwrap();
    let other = hodei.submit(NewJob::new(spec())).await.unwrap();
    assert_eq!(hodei.cancel(cancelled).await.unwrap(), CancelReply::Cancelled);
    let mut agent = HandAgent::new(hodei.gateway(), 8, Resources::none());
    while agent.state.running.is_empty() {
        agent.sync().await.unwrap();
    }
    let sent: Vec<_> = agent.state.running.iter().map(|running| running.job).collect();
    assert_eq!(sent, [other]);
}

#[tokio::test]
async fn an_unsatisfiable_job_waits_and_says_why() {
    let hodei = hodei().await;
    let spec = JobSpec::command(["true"]).resources(Resources::none().gpus(2)).build().unwrap();
    let big = hodei.submit(NewJob::new(spec)).await.unwrap();
    let small = hodei.submit(NewJob::new(JobSpec::command(["true"]).build().unwrap())).await.unwrap();
    let mut agent = HandAgent::new(hodei.gateway(), 8, Resources::none().gpus(1));
    while agent.state.running.is_empty() {
        agent.sync().await.unwrap();
    }
    assert_eq!(agent.state.running[0].job, small);
    let explanation = hodei.explain(big).await.unwrap();
    let expected = Explanation::Unsatisfiable { resource: "gpus".to_owned(), needs: 2, most: 1 };
    assert_eq!(explanation, expected);
    assert_eq!(hodei.get(big).await.unwrap().state, State::Pending);
}

#[tokio::test]
async fn submitting_needs_no_subscriber() {
    let bus = hodei_bus::Bus::new();
    let hodei = Orchestrator::builder().bus(bus).start().await.unwrap();
    let id = hodei.submit(NewJob::new(JobSpec::command(["true"]).build().unwrap())).await.unwrap();
    assert_eq!(hodei.get(id).await.unwrap().state, State::Pending);
}

#[test]
fn a_chain_of_100_000_steps_validates() {
    let mut builder = Pipeline::builder("chain");
    for n in 0..100_000_u32 {
        let step = Step::new(format!("s{n}"), JobSpec::command(["true"]));
        builder = builder.step(if n == 0 { step } else { step.needs(format!("s{}", n - 1)) });
    }
    assert_eq!(builder.build().unwrap().jobs().len(), 100_000);
}

#[tokio::test]
async fn strict_priority_and_order_inside_a_lane() {
    let hodei = hodei().await;
    let spec = |level| {
        let priority = hodei_core::job::Priority::new(level).unwrap();
        JobSpec::command(["true"]).priority(priority).build().unwrap()
    };
    let mut ids = Vec::new();
    for level in [1, 5, 5, 9, 1] {
        ids.push(hodei.submit(NewJob::new(spec(level))).await.unwrap());
    }
    let mut agent = HandAgent::new(hodei.gateway(), 1, Resources::none());
    let mut order = Vec::new();
    for number in 1..=5 {
        while agent.state.running.is_empty() {
            agent.sync().await.unwrap();
        }
        let running = agent.state.running[0].clone();
        order.push(running.job);
        let finish = hodei_core::job::Finish::succeeded(hodei_core::job::Output::none());
        agent.report(number, running.job, running.epoch, hodei_core::gateway::News::Ended(Box::new(finish)));
    }
    assert_eq!(order, [ids[3], ids[1], ids[2], ids[0], ids[4]]);
}
