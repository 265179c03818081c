//! A node played by hand: it assigns what it is told to, keeps what is reported, and fails when it is told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::gateway::{Assignment, Desired, News, Report, SessionState, Stop, StopCause, WorkerGateway};
use hodei_core::job::Stream;
use hodei_core::job::{Epoch, Finish, JobKind, JobSpec, JobSpecBuilder, Lease, NewJob, rules};
use hodei_core::log::LogKey;
use hodei_core::store::Input;
use hodei_core::{Error, ErrorKind, JobId, Name, OwnerId, Result, Tenant, Timestamp};
use tokio::sync::watch;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a call without news waits.
const NEXT_SYNC: Duration = Duration::from_millis(500);

/// The node's end of the link.
#[derive(Clone, Debug)]
pub(crate) struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Rises whenever something changes.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    number: u64,
    assign: Vec<Assignment>,
    stop: Vec<Stop>,
    /// Said in replies that the agent has not confirmed.
    unseen: VecDeque<(u64, Vec<Assignment>, Vec<Stop>)>,
    received: u64,
    told_acked: u64,
    reports: Vec<Report>,
    /// What every call is answered with, for so many calls; for ever where there is no number.
    failure: Option<(ErrorKind, Option<u32>)>,
    failed: u32,
    calls: Vec<SessionState>,
    /// How long an agent may run on without an answer.
    alone: Option<Duration>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), changed: watch::Sender::new(0) }))
    }

    /// The link for an agent.
    pub(crate) fn gateway(&self) -> Arc<dyn WorkerGateway> {
        Arc::new(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state());
        self.0.changed.send_modify(|n| *n += 1);
        result
    }

    /// Assigns a job under its first epoch.
    pub(crate) fn assign(&self, spec: JobSpecBuilder) -> JobId {
        self.assign_with(spec, Vec::new())
    }

    /// Assigns a job with what its parents gave back.
    pub(crate) fn assign_with(&self, spec: JobSpecBuilder, inputs: Vec<Input>) -> JobId {
        let assignment = assignment(spec, inputs);
        let id = assignment.job.id;
        self.change(|state| state.assign.push(assignment));
        id
    }

    /// Assigns several jobs in one reply.
    pub(crate) fn assign_all(&self, specs: Vec<JobSpecBuilder>) -> Vec<JobId> {
        let assignments: Vec<Assignment> =
            specs.into_iter().map(|spec| assignment(spec, Vec::new())).collect();
        let ids = assignments.iter().map(|assignment| assignment.job.id).collect();
        self.change(|state| state.assign.extend(assignments));
        ids
    }

    pub(crate) fn stop(&self, job: JobId, why: StopCause) {
        self.change(|state| state.stop.push(Stop { job, epoch: Epoch::from_number(1), why }));
    }

    /// Answers calls with an error: so many, or all of them until [`Node::heal`].
    pub(crate) fn fail(&self, kind: ErrorKind, times: Option<u32>) {
        self.change(|state| state.failure = Some((kind, times)));
    }

    /// Lets agents run on for so long without an answer.
    pub(crate) fn let_alone(&self, time: Duration) {
        self.change(|state| state.alone = Some(time));
    }

    /// Answers calls again.
    pub(crate) fn heal(&self) {
        self.change(|state| state.failure = None);
    }

    /// How many calls were answered with an error.
    pub(crate) fn failed(&self) -> u32 {
        self.state().failed
    }

    /// Forgets everything, as a node does that takes the place of another.
    pub(crate) fn forget(&self) {
        self.change(|state| {
            let number = state.number;
            let calls = std::mem::take(&mut state.calls);
            *state = State { number, calls, ..State::default() };
        });
    }

    /// What the agent has said, call by call.
    pub(crate) fn calls(&self) -> Vec<SessionState> {
        self.state().calls.clone()
    }

    /// The ends that were reported, in their order.
    pub(crate) fn ends(&self) -> Vec<(JobId, News)> {
        let state = self.state();
        let ends = state.reports.iter().filter(|report| report.news != News::Started);
        ends.map(|report| (report.job, report.news.clone())).collect()
    }

    /// Waits until something is so.
    pub(crate) async fn until<R: Send>(
        &self,
        what: &str,
        check: impl Fn(&Self) -> Option<R> + Send + Sync,
    ) -> R {
        let mut changed = self.0.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Some(result) = check(self) {
                    return result;
                }
                changed.changed().await.expect("the node holds the sender");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    /// Waits for the end of a job's run.
    pub(crate) async fn end_of(&self, job: JobId) -> News {
        self.until("the run ends", |node| {
            node.ends().into_iter().find(|(id, _)| *id == job).map(|(_, news)| news)
        })
        .await
    }

    /// Waits for the end of a job's run that is neither a snooze nor a return.
    pub(crate) async fn finish_of(&self, job: JobId) -> Finish {
        match self.end_of(job).await {
            News::Ended(finish) => *finish,
            news => panic!("it did not end: {news:?}"),
        }
    }

    /// Waits until a job is reported as started.
    pub(crate) async fn started(&self, job: JobId) {
        let is_start = |report: &Report| report.job == job && report.news == News::Started;
        self.until("the run starts", |node| node.state().reports.iter().any(is_start).then_some(())).await;
    }

    fn failure(&self) -> Option<Error> {
        let mut state = self.state();
        let (kind, times) = state.failure.as_mut()?;
        let kind = *kind;
        match times {
            Some(0) => {
                state.failure = None;
                return None;
            }
            Some(times) => *times -= 1,
            None => {}
        }
        state.failed += 1;
        Some(Error::new(kind, "gateway.sync"))
    }
}

impl State {
    fn take_in(&mut self, call: SessionState) {
        while let Some((number, assign, stop)) = self.unseen.pop_front() {
            if number > call.seen {
                self.assign.extend(assign);
                self.stop.extend(stop);
            }
        }
        for report in &call.reports {
            if report.number > self.received {
                self.received = report.number;
                self.reports.push(report.clone());
            }
        }
        self.number = self.number.max(call.seen);
        self.calls.push(call);
    }

    fn answer(&mut self, late: bool) -> Option<Desired> {
        if !late && self.assign.is_empty() && self.stop.is_empty() && self.received == self.told_acked {
            return None;
        }
        self.number += 1;
        self.told_acked = self.received;
        let (assign, stop) = (std::mem::take(&mut self.assign), std::mem::take(&mut self.stop));
        self.unseen.push_back((self.number, assign.clone(), stop.clone()));
        let (received, acked) = (self.received, self.received);
        let (number, next_sync, alone) = (self.number, NEXT_SYNC, self.alone);
        let answers = self.calls.last().map_or(0, |call| call.seq);
        Some(Desired { number, assign, stop, received, acked, next_sync, answers, alone })
    }
}

#[async_trait]
impl WorkerGateway for Node {
    async fn sync(&self, call: SessionState) -> Result<Desired> {
        if let Some(error) = self.failure() {
            self.change(|_| ());
            return Err(error);
        }
        let mut changed = self.0.changed.subscribe();
        self.change(|state| state.take_in(call));
        let late = tokio::time::sleep(NEXT_SYNC);
        tokio::pin!(late);
        loop {
            changed.borrow_and_update();
            if let Some(desired) = self.state().answer(late.is_elapsed()) {
                return Ok(desired);
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = &mut late => {}
            }
        }
    }
}

fn assignment(spec: JobSpecBuilder, inputs: Vec<Input>) -> Assignment {
    let spec = spec.build().expect("a valid spec");
    let (mut job, _) = rules::admit(NewJob::new(spec), Timestamp::EPOCH);
    let lease = Lease { owner: OwnerId::new("node").expect("a name"), incarnation: 1 };
    rules::claim(&mut job, lease, Timestamp::EPOCH).expect("it is due");
    let memory = job.spec.resources().memory;
    Assignment { job: job.into(), inputs: inputs.into(), beside: None, memory }
}

/// The key of a log of a job that [`Node::assign`] assigned.
pub(crate) fn log_of(job: JobId, stream: Stream) -> LogKey {
    LogKey { tenant: Tenant::default(), job, epoch: Epoch::from_number(1), stream }
}

/// Arguments of a handler that takes a text.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Say {
    pub(crate) text: String,
}

impl JobKind for Say {
    const KIND: &'static str = "say";
}

/// The spec of a call of the handler `say`.
pub(crate) fn say(text: &str) -> JobSpecBuilder {
    JobSpec::of(&Say { text: text.to_owned() }).expect("valid arguments")
}

/// What a parent of a name gave back.
pub(crate) fn input(name: &'static str, output: &'static str) -> Input {
    let spec = JobSpec::command(["true"]).build().expect("a valid spec");
    let output = hodei_core::job::Output::Inline(output.as_bytes().into());
    Input { job: NewJob::new(spec).id, name: Name::literal(name), output }
}
