//! How an agent is put together, and the handle on a running one.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::checkpoint::CheckpointStore;
use hodei_core::codec::Codecs;
use hodei_core::gateway::{Offer, WorkerGateway};
use hodei_core::job::{JobKind, Resources};
use hodei_core::text::TextMap;
use hodei_core::{Clock, Error, ErrorKind, Fault, Name, Result, SystemClock};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::crew::Crew;
use crate::driver::{Driver, End, Order};
use crate::execute::{
    Chunks, Context, Executor, Handlers, Home, IntoOutcome, Layer, Outcome, ProcessExecutor,
};
use crate::log::LogStore;
use crate::machine::Machine;
use crate::nodes::Nodes;
use crate::pace::Pace;
use crate::progress::Progress;

/// The most jobs that an agent runs at once.
const SLOTS_MAX: u32 = 65_536;
/// What is taken for the memory of a machine that does not tell.
const MEMORY_UNKNOWN: u64 = 1 << 30;

/// The way to an agent.
#[derive(Clone, Copy, Debug)]
pub struct Agent;

impl Agent {
    /// Begins to put an agent together that works for a node.
    pub fn builder(gateway: Arc<dyn WorkerGateway>) -> AgentBuilder<()> {
        AgentBuilder {
            gateways: vec![gateway],
            node_timeout: Duration::from_secs(2),
            name: "agent".to_owned(),
            slots: default_slots(),
            capacity: None,
            handlers: Handlers::new(Arc::new(())),
            processes: None,
            executors: Vec::new(),
            logs: None,
            checkpoints: None,
            labels: Vec::new(),
            drain_timeout: Duration::from_secs(6),
            faults: Vec::new(),
        }
    }
}

/// Puts an agent together. Nothing happens before [`AgentBuilder::start`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct AgentBuilder<S> {
    gateways: Vec<Arc<dyn WorkerGateway>>,
    node_timeout: Duration,
    name: String,
    slots: u32,
    capacity: Option<Resources>,
    handlers: Handlers<S>,
    processes: Option<Arc<ProcessExecutor>>,
    executors: Vec<Arc<dyn Executor>>,
    logs: Option<PathBuf>,
    checkpoints: Option<Arc<dyn CheckpointStore>>,
    labels: Vec<(String, String)>,
    drain_timeout: Duration,
    faults: Vec<Fault>,
}

impl AgentBuilder<()> {
    /// Sets the state that handlers share; before the first handler.
    pub fn state<S: Send + Sync + 'static>(mut self, state: S) -> AgentBuilder<S> {
        if !self.handlers.is_empty() {
            self.faults.push(Fault::new("state", "after_handler"));
        }
        AgentBuilder {
            gateways: self.gateways,
            node_timeout: self.node_timeout,
            name: self.name,
            slots: self.slots,
            capacity: self.capacity,
            handlers: self.handlers.with_state(Arc::new(state)),
            processes: self.processes,
            executors: self.executors,
            logs: self.logs,
            checkpoints: self.checkpoints,
            labels: self.labels,
            drain_timeout: self.drain_timeout,
            faults: self.faults,
        }
    }
}

impl<S: Send + Sync + 'static> AgentBuilder<S> {
    /// Sets the name of the worker, which no other agent of the node may have: the one that starts last takes the place of
    /// the others, which end ([`AgentHandle::ended`]). Default: `agent`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds a node that the agent goes to when the one that it works for shuts down or does not answer. It works for one node
    /// at a time, begins with that of [`Agent::builder`], and stays where it is answered. The nodes are those of one store;
    /// give the agents of a fleet different ones to begin with.
    ///
    /// A node that is shut down lets the agent go when what it runs for that node has ended: so nothing is run twice. What it
    /// still runs for a node that is gone is ended by the next one, which runs it again once the dead node's time is over; that
    /// costs no attempt.
    pub fn or_node(mut self, gateway: Arc<dyn WorkerGateway>) -> Self {
        self.gateways.push(gateway);
        self
    }

    /// Sets how much longer a node's answer may take than agreed before the agent calls another one, where it was given
    /// several. Default: 2 s.
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.node_timeout = timeout;
        self
    }

    /// Sets how many jobs run at once. Default: four for each processor.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Sets what the worker has. Default: [`machine_capacity`].
    pub fn capacity(mut self, capacity: Resources) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// Adds a handler: an async function of a context and its arguments.
    pub fn handler<A, F, Fut, R>(mut self, handler: F) -> Self
    where
        A: JobKind,
        F: Fn(Context<S>, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: IntoOutcome + 'static,
    {
        match Name::new(A::KIND) {
            Ok(kind) => {
                if self.handlers.add(kind, handler) {
                    self.faults.push(Fault::new(format!("handler.{}", A::KIND), "duplicate"));
                }
            }
            Err(error) => self.faults.extend(error.faults().iter().cloned()),
        }
        self
    }

    /// Adds a handler that takes several jobs of its kind in one call, and gives an outcome for each in their order. Each
    /// job is leased, retried and stopped for itself; one that was stopped is still in the call, where
    /// [`Context::is_cancelled`] tells. A panic fails all of them.
    pub fn chunk_handler<A, F, Fut>(mut self, chunks: Chunks, handler: F) -> Self
    where
        A: JobKind,
        F: Fn(Vec<(Context<S>, A)>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<Outcome>> + Send + 'static,
    {
        match Name::new(A::KIND) {
            Ok(kind) => {
                if self.handlers.add_chunked(kind, chunks, handler) {
                    self.faults.push(Fault::new(format!("handler.{}", A::KIND), "duplicate"));
                }
            }
            Err(error) => self.faults.extend(error.faults().iter().cloned()),
        }
        self
    }

    /// Adds a layer around every handler, inside those that were added before.
    pub fn layer(mut self, layer: impl Layer + 'static) -> Self {
        self.handlers.layer(Arc::new(layer));
        self
    }

    /// Decodes the arguments of handlers, and encodes those of the jobs that they spawn; as the node does. Default: no
    /// codec.
    pub fn codecs(mut self, codecs: Codecs) -> Self {
        self.handlers.codecs(codecs);
        self
    }

    /// Runs commands.
    pub fn commands(mut self, executor: ProcessExecutor) -> Self {
        self.processes = Some(Arc::new(executor));
        self
    }

    /// Adds an executor of another kind.
    pub fn executor(mut self, executor: Arc<dyn Executor>) -> Self {
        self.executors.push(executor);
        self
    }

    /// Sets the directory where logs are kept: the first 64 MiB of each stream. What follows them is dropped and
    /// counted, in the manifest of the job and in [`LogRead::dropped`](hodei_core::log::LogRead::dropped). Default: the
    /// last 256 KiB of each stream are kept in memory, for the last 1,024 streams that have ended.
    pub fn logs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.logs = Some(directory.into());
        self
    }

    /// Sets where handlers keep how far they have come. Agents that run the same jobs need the same store. Default: nowhere,
    /// and [`Context::save_checkpoint`] fails.
    pub fn checkpoints(mut self, checkpoints: Arc<dyn CheckpointStore>) -> Self {
        self.checkpoints = Some(checkpoints);
        self
    }

    /// Sets how long [`AgentHandle::shutdown`] goes on calling a node that does not answer, once nothing runs any more
    /// and only ends are left to be told; what it is not told by then, it takes back. Default: 6 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Adds what the worker says about itself.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Checks everything, ends what a killed life of this agent left running, and starts to work.
    ///
    /// # Errors
    ///
    /// `Config` with every contradiction found; `Io` when the directory for work cannot be made or swept.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing has been started when it is dropped.
    pub async fn start(mut self) -> Result<AgentHandle> {
        let (name, labels) = self.check()?;
        if let Some(processes) = &self.processes {
            processes.recover().await?;
        }
        let mut executors = std::mem::take(&mut self.executors);
        if !self.handlers.is_empty() {
            executors.push(Arc::new(self.handlers));
        }
        executors.extend(self.processes.map(|executor| executor as Arc<dyn Executor>));
        let mut by_work = HashMap::new();
        for (n, executor) in executors.iter().enumerate() {
            by_work.extend(executor.runs().into_iter().map(|runs| (runs, n)));
        }
        let offer = Offer {
            runs: by_work.keys().cloned().collect(),
            capacity: self.capacity.unwrap_or_else(machine_capacity),
            slots: self.slots,
            labels,
        };
        // A later life has a higher number, unless the clock was set back in between: [`AgentHandle::ended`] tells.
        let incarnation = u64::try_from(SystemClock.now().as_micros()).unwrap_or(0);
        let logs = Arc::new(LogStore::new(self.logs));
        let (order, orders) = watch::channel(Order::Work);
        let driver = Driver {
            nodes: Nodes::new(self.gateways, self.node_timeout),
            machine: Machine::new(name, incarnation, Arc::new(offer)),
            clock: Arc::new(Pace::new()),
            home: Arc::new(Home {
                logs: Arc::clone(&logs),
                checkpoints: self.checkpoints,
                progress: Progress::default(),
            }),
            orders,
            stops: HashMap::default(),
            crew: Crew::new(executors),
            by_work,
            ended: Vec::new(),
            drain_timeout: self.drain_timeout,
        };
        let (end, ended) = watch::channel(None);
        let task = tokio::spawn(async move {
            let how = driver.run().await;
            end.send_replace(Some(how));
        });
        Ok(AgentHandle { order, task: Mutex::new(Some(AbortOnDrop(task))), ended, logs })
    }

    fn check(&self) -> Result<(Name, TextMap)> {
        let mut faults = self.faults.clone();
        faults.extend(Name::fault("name", &self.name));
        if self.slots == 0 {
            faults.push(Fault::new("slots", "zero"));
        } else if self.slots > SLOTS_MAX {
            faults.push(Fault::new("slots", "too_large").limit(SLOTS_MAX.into()));
        }
        if self.handlers.is_empty() && self.processes.is_none() && self.executors.is_empty() {
            faults.push(Fault::new("executors", "empty").detail("the agent could run nothing"));
        }
        let labels = TextMap::new(self.labels.iter().map(|(name, value)| (name, value)));
        if labels.is_none() {
            faults.push(Fault::new("labels", "nul"));
        }
        match (faults.first(), labels) {
            (None, Some(labels)) => Ok((Name::new(&self.name)?, labels)),
            _ => {
                let why: Vec<String> = faults.iter().map(ToString::to_string).collect();
                Err(Error::new(ErrorKind::Config, "agent.start").with("why", why.join("; ")))
            }
        }
    }
}

/// A running agent. Dropping it ends what runs at once; call [`AgentHandle::shutdown`] to let it end first.
#[derive(Debug)]
pub struct AgentHandle {
    order: watch::Sender<Order>,
    task: Mutex<Option<AbortOnDrop>>,
    ended: watch::Receiver<Option<End>>,
    logs: Arc<LogStore>,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl AgentHandle {
    /// Returns the logs of the agent's runs. A node that is given them removes those of the jobs that it no longer
    /// keeps.
    #[must_use]
    pub fn logs(&self) -> Arc<dyn hodei_core::log::LogStore> {
        Arc::clone(&self.logs) as Arc<dyn hodei_core::log::LogStore>
    }

    /// Takes no more work and waits until what runs has ended and its end is durable, or the node has not answered for
    /// as long as [`AgentBuilder::drain_timeout`] says. Idempotent. Call it before the node is shut down.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: when dropped, what runs is ended at once.
    pub async fn shutdown(&self) {
        self.end(Order::Drain).await;
    }

    /// Waits until the agent has ended: `Ok` when it was told to.
    ///
    /// # Errors
    ///
    /// `Conflict` when another agent of the same name works for the node, or this one's last life did and the clock was set
    /// back since: what ran here was ended. `Bug` when the agent's loop panicked.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only listens.
    pub async fn ended(&self) -> Result<()> {
        let mut ended = self.ended.clone();
        let why = ended.wait_for(Option::is_some).await.map(|how| *how);
        match why {
            Ok(Some(End::Replaced)) => {
                Err(Error::new(ErrorKind::Conflict, "agent.run").with("why", "another agent has its name"))
            }
            Ok(_) => Ok(()),
            Err(_) if *self.order.borrow() == Order::Kill => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Bug, "agent.run").with("why", "its loop has died")),
        }
    }

    /// Ends what runs at once, with everything it started, and says nothing more. Idempotent.
    ///
    /// # Cancel safety
    ///
    /// As [`AgentHandle::shutdown`].
    pub async fn kill(&self) {
        self.end(Order::Kill).await;
    }

    async fn end(&self, order: Order) {
        let Some(mut task) = self.task.lock().await.take() else { return };
        self.order.send_replace(order);
        // A loop that panicked has nothing left to end.
        let _ = (&mut task.0).await;
    }
}

fn default_slots() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(processors * 4).unwrap_or(SLOTS_MAX).min(SLOTS_MAX)
}

/// Returns what this machine has: its processors and its memory, no GPUs.
#[must_use]
pub fn machine_capacity() -> Resources {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
    });
    Resources::none().cpu_millis(processors as u64 * 1_000).memory(memory.unwrap_or(MEMORY_UNKNOWN))
}
