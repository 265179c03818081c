//! One job through all nine hops, with the value at each.

use std::sync::Arc;

use bytes::Bytes;
use hodei_bus::Bus;
use hodei_core::bus::{Delivery, EventBus, EventFilter, SubscribeOptions};
use hodei_core::event::Event;
use hodei_core::gateway::News;
use hodei_core::job::{Cause, Finish, JobSpec, NewJob, Output, Resources, State};
use hodei_core::store::{JobStore, MemoryStore, Scope, Store};
use hodei_sched::Orchestrator;

use crate::agent_by_hand::HandAgent;

#[tokio::test]
async fn a_job_walks_through_the_house() {
    let store = Arc::new(MemoryStore::new());
    let bus = Arc::new(Bus::new());
    let hodei = Orchestrator::builder()
        .shared_store(Arc::clone(&store) as Arc<dyn Store>)
        .shared_bus(Arc::clone(&bus) as Arc<dyn EventBus>)
        .node("walk")
        .start()
        .await
        .unwrap();
    let mut events = bus.subscribe(EventFilter::all(), SubscribeOptions::default());

    // submit → store
    let spec = JobSpec::command(["true"]).resources(Resources::none().cpu_millis(500)).build().unwrap();
    let id = hodei.submit(NewJob::new(spec)).await.unwrap();
    let job = hodei.get(id).await.unwrap();
    assert_eq!((job.state, job.version, job.epoch.number(), job.attempt), (State::Pending, 1, 0, 0));

    // claim → place → assign
    let mut agent = HandAgent::new(hodei.gateway(), 1, Resources::none().cpu_millis(1_000));
    let mut desired = agent.sync().await.unwrap();
    while desired.assign.is_empty() {
        desired = agent.sync().await.unwrap();
    }
    let [assignment] = &desired.assign[..] else { panic!("one assignment: {desired:?}") };
    assert_eq!((assignment.job.id, assignment.job.epoch.number()), (id, 1));
    let job = hodei.get(id).await.unwrap();
    assert_eq!((job.state, job.version, job.attempt), (State::Scheduled, 2, 0));
    assert_eq!(job.lease.unwrap().owner.name().as_str(), "walk");

    // execute → report
    let epoch = assignment.job.epoch;
    agent.report(1, id, epoch, News::Started);
    let finish = Finish::succeeded(Output::Inline(Bytes::from_static(b"\"done\"")));
    agent.report(2, id, epoch, News::Ended(Box::new(finish)));
    while agent.sync().await.unwrap().acked < 2 {}

    // apply
    let job = hodei.wait(id).await.unwrap();
    assert_eq!((job.state, job.version, job.attempt, job.lease.is_none()), (State::Succeeded, 4, 1, true));
    assert_eq!(job.output().unwrap().inline().unwrap(), &b"\"done\""[..]);

    // publish: the bus carried what the change log keeps
    let causes = [Cause::Submitted, Cause::Claimed, Cause::Started, Cause::Succeeded];
    let log = store.changes(&Scope::All, None, 10).await.unwrap().changes;
    assert_eq!(log.iter().map(|change| change.cause).collect::<Vec<_>>(), causes);
    let mut heard = Vec::new();
    while heard.len() < causes.len() {
        for delivery in events.recv(10).await {
            if let Delivery::Event(Event::Job(event)) = delivery {
                heard.push((event.version, event.cause));
            }
        }
    }
    assert_eq!(heard, log.iter().map(|change| (change.version, change.cause)).collect::<Vec<_>>());
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    hodei.shutdown().await;
}
