//! Live progress and the steps' logs, line by line.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hodei_core::bus::{Delivery, Subscription};
use hodei_core::event::{Event, JobEvent};
use hodei_core::job::{Cause, Epoch, JobSummary, State, Stream};
use hodei_core::log::{LogKey, LogReader};
use hodei_core::{JobId, Name, PipelineId, Result};
use hodei_sched::Orchestrator;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::print::show;
use super::resume;

/// How many events are taken at once.
const BATCH: usize = 256;
/// How many bytes of a log are read at once.
const READ: usize = 64 * 1024;
/// The longest line that is held back for its end; longer ones are shown in pieces.
const LINE_MAX: usize = 16 * 1024;

/// Shows what happens to the steps of a run.
pub(crate) struct Screen {
    names: HashMap<JobId, Name>,
    open: HashSet<JobId>,
    total: usize,
    logs: Arc<dyn LogReader>,
    followed: HashSet<(JobId, Epoch)>,
    followers: JoinSet<()>,
    out: mpsc::Sender<String>,
}

impl Screen {
    pub(crate) fn new(steps: &[JobSummary], logs: Arc<dyn LogReader>, out: mpsc::Sender<String>) -> Self {
        Self {
            names: steps.iter().map(|step| (step.id, step.name.clone())).collect(),
            open: steps.iter().filter(|step| !step.state.is_terminal()).map(|step| step.id).collect(),
            total: steps.len(),
            logs,
            followed: HashSet::new(),
            followers: JoinSet::new(),
            out,
        }
    }

    /// Shows events until every step has ended. What was missed is read from the store.
    pub(crate) async fn run(
        &mut self,
        events: &mut dyn Subscription,
        hodei: &Orchestrator,
        run: PipelineId,
    ) -> Result<()> {
        while !self.open.is_empty() {
            let deliveries = events.recv(BATCH).await;
            if deliveries.is_empty() {
                return Ok(());
            }
            for delivery in deliveries {
                match delivery {
                    Delivery::Event(Event::Job(event)) => self.job(&event).await,
                    Delivery::Lagged { .. } => {
                        let steps = resume::steps(hodei, run).await?;
                        let open = steps.iter().filter(|step| !step.state.is_terminal());
                        self.open = open.map(|step| step.id).collect();
                    }
                    _ => {}
                }
            }
        }
        // The ends of the logs may come after the ends of the steps.
        while self.followers.join_next().await.is_some() {}
        Ok(())
    }

    async fn job(&mut self, event: &JobEvent) {
        let Some(name) = self.names.get(&event.job).cloned() else { return };
        if ran(event) && self.followed.insert((event.job, event.epoch)) {
            self.follow(event, &name);
        }
        let word = match (event.to, event.cause) {
            (State::Running, _) => "started",
            (State::Pending, Cause::Retried) => "failed, will be retried",
            (State::Pending, Cause::Lost) => "was interrupted, runs again",
            (State::Succeeded, _) => "done",
            (State::Failed, Cause::ParentFailed) => "not run: a step it needs failed",
            (State::Failed, _) => "FAILED",
            (State::Cancelled, _) => "cancelled",
            _ => return,
        };
        if event.to.is_terminal() {
            self.open.remove(&event.job);
        }
        let done = self.total - self.open.len();
        show(&self.out, format!("[{done}/{}] {name}: {word}", self.total)).await;
    }

    /// Shows both streams of a run while it writes them.
    fn follow(&mut self, event: &JobEvent, name: &Name) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let key = LogKey { tenant: event.tenant.clone(), job: event.job, epoch: event.epoch, stream };
            let (logs, out, name) = (Arc::clone(&self.logs), self.out.clone(), name.clone());
            self.followers.spawn(async move { follow(&*logs, &key, &name, &out).await });
        }
    }
}

/// Whether a run of this epoch has begun.
fn ran(event: &JobEvent) -> bool {
    matches!(
        event.cause,
        Cause::Started | Cause::Succeeded | Cause::Failed | Cause::Retried | Cause::Cancelled
    ) && event.attempt > 0
}

async fn follow(logs: &dyn LogReader, key: &LogKey, name: &Name, out: &mpsc::Sender<String>) {
    let (mut offset, mut rest) = (0, Vec::new());
    // A log that is not there, or no longer, shows nothing.
    while let Ok(read) = logs.follow(key, offset, READ).await {
        offset = read.next;
        rest.extend_from_slice(&read.bytes);
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            let whole: Vec<u8> = rest.drain(..=end).collect();
            log_line(out, name, &whole[..end]).await;
        }
        if rest.len() > LINE_MAX || (read.ended && !rest.is_empty()) {
            log_line(out, name, &std::mem::take(&mut rest)).await;
        }
        if read.ended {
            return;
        }
    }
}

/// Shows a line of a log with its control characters escaped: a log must not steer the terminal.
async fn log_line(out: &mpsc::Sender<String>, name: &Name, bytes: &[u8]) {
    let text: String = String::from_utf8_lossy(bytes)
        .trim_end_matches('\r')
        .chars()
        .flat_map(|c| {
            let escaped = c.is_control() && c != '\t';
            escaped.then(|| c.escape_default()).into_iter().flatten().chain((!escaped).then_some(c))
        })
        .collect();
    show(out, format!("{name} | {text}")).await;
}
