//! How soon the jobs of a node that is killed run elsewhere.

use std::io::{BufRead, BufReader, Read, stdin};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hodei_agent::{Agent, Context};
use hodei_benches::load::Marks;
use hodei_benches::report::{Goal, Report, Unit, say};
use hodei_core::job::{NewJob, State};
use hodei_core::store::{Scope, SubmitOptions};
use hodei_sched::Orchestrator;
use hodei_test_servers::Postgres;

use crate::Sizes;
use crate::world::{self, Numbered, SLOTS};

/// The argument that makes this program the node which is killed; its URL and its heartbeats in milliseconds follow.
pub(crate) const NODE: &str = "--node";

/// How many jobs it runs when it is killed.
const JOBS: usize = 200;
/// How long anything may take that must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a node beats, and after how long of silence it counts as dead: by default, and tuned to notice soon.
const DEFAULT: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(6)];
const TUNED: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1_500)];

async fn hang(_: Context<()>, Numbered(n): Numbered) {
    say(&format!("began {n}"));
    std::future::pending::<()>().await;
}

async fn finish(context: Context<Arc<Marks>>, Numbered(n): Numbered) {
    context.state().mark(n);
}

/// Lives as the node that is killed: takes whatever there is and never ends it. It ends with its parent.
pub(crate) async fn live(args: &[String]) -> ExitCode {
    let [url, beat, ttl, ..] = args else { return ExitCode::FAILURE };
    let millis = |text: &String| text.parse().map(Duration::from_millis);
    let (Ok(beat), Ok(ttl), Ok(store)) = (millis(beat), millis(ttl), world::open(url.clone()).await) else {
        return ExitCode::FAILURE;
    };
    let Ok(hodei) = Orchestrator::builder().store(store).heartbeat(beat, ttl).start().await else {
        return ExitCode::FAILURE;
    };
    let Ok(_agent) = Agent::builder(hodei.gateway()).slots(SLOTS).handler(hang).start().await else {
        return ExitCode::FAILURE;
    };
    say("ready");
    // Its input ends when its parent does.
    let ended = tokio::task::spawn_blocking(|| stdin().read_to_end(&mut Vec::new()));
    drop(ended.await);
    ExitCode::SUCCESS
}

/// The other process, which is killed when the value goes.
struct Victim {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Victim {
    fn start(url: &str, [beat, ttl]: [Duration; 2]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args([NODE, url, &beat.as_millis().to_string(), &ttl.as_millis().to_string()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| error.to_string())?;
        let said = child.stdout.take().ok_or("no pipe")?;
        Ok(Self { child, said: BufReader::new(said) })
    }

    /// Waits until it has said so many lines that begin with a word.
    fn hear(&mut self, word: &str, lines: usize) -> Result<(), String> {
        let mut heard = 0;
        while heard < lines {
            let mut line = String::new();
            if self.said.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
                return Err("the node died by itself".to_owned());
            }
            heard += usize::from(line.starts_with(word));
        }
        Ok(())
    }

    /// Kills it and waits until the operating system says that it is gone.
    fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills a node that leads and runs all jobs; returns after how long the last of them began on the node that is left.
async fn kill(server: &Postgres, heartbeat: [Duration; 2]) -> Result<Duration, String> {
    let failed = |error: hodei_core::Error| error.to_string();
    let database = world::database(server)?;
    // The first one leads: who takes over has to learn that nobody does any more.
    let mut victim = Victim::start(&database.url(), heartbeat)?;
    victim.hear("ready", 1)?;
    let store = Arc::new(world::open(database.url()).await?);
    let [beat, ttl] = heartbeat;
    let hodei = Orchestrator::builder().shared_store(Arc::clone(&store) as _).heartbeat(beat, ttl);
    let hodei = hodei.start().await.map_err(failed)?;
    let jobs: Vec<NewJob> = world::plain(JOBS);
    hodei.submit_many(jobs, SubmitOptions::each()).await.map_err(failed)?;
    let mut victim = tokio::task::spawn_blocking(move || victim.hear("began", JOBS).map(|()| victim))
        .await
        .map_err(|error| error.to_string())??;
    let marks = Arc::new(Marks::new(JOBS));
    let agent = Agent::builder(hodei.gateway()).slots(SLOTS).state(Arc::clone(&marks)).handler(finish);
    let agent = agent.start().await.map_err(failed)?;
    // All that began is written down, and the last heartbeat may be up to one old.
    tokio::time::sleep(beat + beat / 2).await;
    let start = Instant::now();
    victim.kill();
    let took = tokio::time::timeout(PATIENCE, marks.all()).await.map(|()| start.elapsed());
    let took = took.map_err(|_| format!("jobs of the dead did not begin elsewhere in {PATIENCE:?}"))?;
    let settled = async {
        loop {
            let counts = hodei_core::store::JobStore::counts(&*store, &Scope::All).await.map_err(failed)?;
            if counts.of(State::Succeeded) == JOBS as u64 && counts.total() == JOBS as u64 {
                return Ok::<(), String>(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled)
        .await
        .map_err(|_| "jobs of the dead never settled".to_owned())??;
    agent.shutdown().await;
    hodei.shutdown().await;
    marks.check()?;
    Ok(took)
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let server = world::server()?;
    report.group(&format!(
        "a node that leads and runs {JOBS} jobs is killed: until the last runs on the other"
    ));
    let tries = [(DEFAULT, sizes.kills[0], 10_000.0), (TUNED, sizes.kills[1], 3_000.0)];
    for (heartbeat, kills, goal) in tries.into_iter().filter(|(_, kills, _)| *kills > 0) {
        let mut slowest = Duration::ZERO;
        for _ in 0..kills {
            slowest = slowest.max(kill(&server, heartbeat).await?);
        }
        let [beat, ttl] = heartbeat;
        let what = format!("heartbeat {beat:?}, dead after {ttl:?}: the slowest of {kills}");
        report.judge(&what, slowest.as_secs_f64() * 1e3, Unit::Millis, Goal::AtMost(goal));
    }
    Ok(())
}
