//! Hears what happens to jobs: live, and in another life of the program from where the last one had come to.
//!
//! Run with: `cargo run --release --example events`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::path::Path;
use std::sync::Arc;

use hodei_agent::{Agent, Context};
use hodei_bus::{Bus, Follow};
use hodei_core::Result;
use hodei_core::bus::{Delivery, EventBus, EventFilter, SubscribeOptions};
use hodei_core::event::{Event, EventKind};
use hodei_core::job::{JobKind, JobSpec, NewJob};
use hodei_core::store::{Cursor, JobStore, Scope, Store};
use hodei_sched::Orchestrator;
use hodei_store_redb::RedbStore;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Greet(String);

impl JobKind for Greet {
    const KIND: &'static str = "greet";
}

async fn greet(_: Context<()>, job: Greet) -> String {
    format!("hello, {}", job.0)
}

/// Runs a job and follows the log until the job has ended, `most` events at the most; returns where that was.
async fn live(file: &Path, after: Option<Cursor>, most: usize) -> Result<Option<Cursor>> {
    let (store, bus) = (Arc::new(RedbStore::open(file)?), Arc::new(Bus::new()));
    let hodei = Orchestrator::builder()
        .shared_store(Arc::clone(&store) as Arc<dyn Store>)
        .shared_bus(Arc::clone(&bus) as Arc<dyn EventBus>)
        .start()
        .await?;
    let agent = Agent::builder(hodei.gateway()).handler(greet).start().await?;

    // Only what was asked for is heard, and nobody is woken for anything else.
    let mut ends = bus.subscribe(EventFilter::all().kind(EventKind::Succeeded), SubscribeOptions::default());
    let id = hodei.submit(NewJob::new(JobSpec::of(&Greet("world".into()))?.build()?)).await?;
    for delivery in ends.recv(10).await {
        match delivery {
            Delivery::Event(Event::Job(event)) => {
                println!("live: {:?} of our job: {}", event.to, event.job == id)
            }
            other => println!("live: {other:?}"),
        }
    }

    // Who comes later reads the change log from where it has come to, and goes on live from there.
    let log = Arc::clone(&store) as Arc<dyn JobStore>;
    let mut follow = Follow::new(&*bus, log, Scope::All, after);
    let (mut over, mut seen) = (false, 0);
    while !over && seen < most {
        for event in follow.next(1).await? {
            if let Event::Job(event) = event {
                println!("log: version {} is {:?}, of our job: {}", event.version, event.to, event.job == id);
                over = event.job == id && event.to.is_terminal();
                seen += 1;
            }
        }
    }
    let place = follow.cursor().cloned();
    agent.shutdown().await;
    hodei.shutdown().await;
    Ok(place)
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("hodei-events-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let file = directory.join("jobs.redb");
    // The first life ends before it has heard everything. A cursor is bytes: a program keeps them where it likes.
    let place = live(&file, None, 2).await?.map(|place| place.as_bytes().to_vec());
    println!("another life");
    live(&file, place.map(Cursor::from_bytes), usize::MAX).await?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
