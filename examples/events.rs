//! Hears what happens to jobs: live, and once more from the change log after the program was gone.
//!
//! Run with: `cargo run --release --example events`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::sync::Arc;

use hodei_agent::{Agent, Context};
use hodei_bus::{Bus, Follow};
use hodei_core::Result;
use hodei_core::bus::{Delivery, EventBus, EventFilter, SubscribeOptions};
use hodei_core::event::{Event, EventKind};
use hodei_core::job::{JobKind, JobSpec, NewJob};
use hodei_core::store::{JobStore, MemoryStore, Scope, Store};
use hodei_sched::Orchestrator;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Greet(String);

impl JobKind for Greet {
    const KIND: &'static str = "greet";
}

async fn greet(_: Context<()>, job: Greet) -> String {
    format!("hello, {}", job.0)
}

#[tokio::main]
async fn main() -> Result<()> {
    let (store, bus) = (Arc::new(MemoryStore::new()), Arc::new(Bus::new()));
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

    // Who comes later reads it all in the change log, and goes on live from there.
    let log = Arc::clone(&store) as Arc<dyn JobStore>;
    let mut follow = Follow::new(&*bus, log, Scope::All, None);
    let mut over = false;
    while !over {
        for event in follow.next(100).await? {
            if let Event::Job(event) = event {
                println!("log: version {} is {:?}", event.version, event.to);
                over = event.to.is_terminal();
            }
        }
    }
    agent.shutdown().await;
    hodei.shutdown().await;
    Ok(())
}
