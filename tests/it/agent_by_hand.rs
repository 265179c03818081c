//! An agent that a test plays by hand: every call is the test's own.

use std::sync::Arc;

use hodei_core::Name;
use hodei_core::gateway::{Desired, News, Offer, Report, RunningJob, SessionState, WorkerGateway};
use hodei_core::job::{Epoch, Resources, Runs};
use hodei_core::{JobId, Result};

/// The state of the agent, as its next call will tell it.
pub(crate) struct HandAgent {
    gateway: Arc<dyn WorkerGateway>,
    pub(crate) state: SessionState,
}

impl HandAgent {
    /// An agent that runs commands.
    pub(crate) fn new(gateway: Arc<dyn WorkerGateway>, slots: u32, capacity: Resources) -> Self {
        let offer = Offer { runs: vec![Runs::Command], capacity, slots, labels: Default::default() };
        let state = SessionState {
            worker: Name::literal("by-hand"),
            incarnation: 1,
            seq: 0,
            seen: 0,
            offer: Arc::new(offer),
            running: Vec::new(),
            reports: Vec::new(),
            draining: false,
        };
        Self { gateway, state }
    }

    /// Calls, and takes in what it is told.
    pub(crate) async fn sync(&mut self) -> Result<Desired> {
        self.state.seq += 1;
        let desired = self.gateway.sync(self.state.clone()).await?;
        self.state.seen = desired.number;
        self.state.reports.retain(|report| report.number > desired.received);
        self.state.running.extend(desired.assign.iter().map(RunningJob::of));
        Ok(desired)
    }

    /// Notes a report for the next call.
    pub(crate) fn report(&mut self, number: u64, job: JobId, epoch: Epoch, news: News) {
        if !matches!(news, News::Started) {
            self.state.running.retain(|running| running.job != job);
        }
        self.state.reports.push(Report { number, job, epoch, news });
    }
}
