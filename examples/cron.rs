//! A schedule that fires every second in a time zone, with a handler that tells the time it was fired for.
//!
//! Run with: `cargo run --release --example cron`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use hodei_agent::{Agent, Context};
use hodei_core::job::{JobKind, JobSpec};
use hodei_core::store::{Schedule, Scope};
use hodei_core::{Name, Tenant};
use hodei_sched::Orchestrator;
use hodei_sched::cron::{CronJob, CronRule, Misfire};
use tokio::sync::mpsc;

#[derive(serde::Serialize, serde::Deserialize)]
struct Report;

impl JobKind for Report {
    const KIND: &'static str = "report";
}

async fn report(context: Context<mpsc::UnboundedSender<String>>, _: Report) {
    let fired = context.job().unique.as_deref().and_then(Schedule::of_key);
    let line = fired.map_or_else(String::new, |(schedule, at)| format!("{schedule} of second {at}"));
    // The program may have seen enough by now.
    let _ = context.state().send(line);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rule = CronRule::new("* * * * * *").zone("Europe/Madrid").misfire(Misfire::Skip);
    let every_second = CronJob::new("report", rule, JobSpec::of(&Report)?.build()?);
    let hodei = Orchestrator::builder().cron(every_second).start().await?;
    let (told, mut lines) = mpsc::unbounded_channel();
    let agent = Agent::builder(hodei.gateway()).state(told).handler(report).start().await?;

    for _ in 0..2 {
        println!("{}", lines.recv().await.unwrap_or_default());
    }
    let (tenant, name) = (Tenant::default(), Name::new("report")?);
    hodei.schedules().pause(&tenant, &name).await?;
    for listed in hodei.schedules().list(&Scope::All).await? {
        println!("{}: paused: {}, next: {:?}", listed.schedule.name, listed.paused, listed.next);
    }
    agent.shutdown().await;
    hodei.shutdown().await;
    Ok(())
}
