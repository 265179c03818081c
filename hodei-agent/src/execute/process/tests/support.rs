//! One way to run a command in a test.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::{
    execute::process::{
        CommandPlan, Control, Escapees, Finished, OutputSink, Processes, RunError, Stop, Stream,
    },
    sys::{KernelKills, Privileges},
};

/// How long a test waits for what must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Collects output, and tells of each chunk of standard output as it comes.
#[derive(Default)]
pub(super) struct Collected {
    chunks: Mutex<Vec<(Stream, Bytes)>>,
    told: Option<mpsc::UnboundedSender<Bytes>>,
}

#[async_trait]
impl OutputSink for Collected {
    async fn accept(&self, stream: Stream, chunk: Bytes) {
        if let (Some(told), Stream::Stdout) = (&self.told, stream) {
            let _ = told.send(chunk.clone());
        }
        self.chunks.lock().unwrap().push((stream, chunk));
    }
}

/// An agent with a mark nobody else has.
pub(super) struct Env {
    pub(super) mark: String,
    pub(super) processes: Processes,
}

/// A run that is under way.
pub(super) struct Going {
    pub(super) stop: watch::Sender<Stop>,
    pub(super) prints: mpsc::UnboundedReceiver<Bytes>,
    task: tokio::task::JoinHandle<Result<Finished, RunError>>,
    sink: Arc<Collected>,
}

impl Env {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only uniqueness matters.
        let mark = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { processes: Processes::start(mark.as_str()).unwrap(), mark }
    }

    /// As [`Env::new`], where the kernel counts in a file of the test what it kills.
    pub(super) fn counting(file: &Path) -> Self {
        let new = Self::new();
        let kills = KernelKills::counted_in(file);
        Self { processes: Processes::counting(new.mark.as_str(), kills).unwrap(), ..new }
    }

    pub(super) fn start(&self, plan: CommandPlan) -> Going {
        let (told, prints) = mpsc::unbounded_channel();
        let sink = Arc::new(Collected { chunks: Mutex::default(), told: Some(told) });
        let (stop, stopped) = watch::channel(Stop::Run);
        let control = Control { stop: stopped, output: Arc::clone(&sink) as Arc<dyn OutputSink> };
        let processes = self.processes.clone();
        let task = tokio::spawn(async move { processes.run(plan, control).await });
        Going { stop, prints, task, sink }
    }

    /// Runs to the end; returns what it printed to standard output too.
    pub(super) async fn run(&self, plan: CommandPlan) -> (Finished, Vec<u8>) {
        self.start(plan).finish().await
    }

    pub(super) async fn refused(&self, plan: CommandPlan) -> RunError {
        self.start(plan).task.await.unwrap().unwrap_err()
    }

    /// How many processes carry the mark.
    pub(super) fn marked(&self) -> usize {
        let mark = format!("HODEI_MARK={}", self.mark);
        let environs = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let path = entry.ok()?.path();
            fs::read(path.join("environ")).ok()
        });
        environs.filter(|environ| environ.split(|b| *b == 0).any(|entry| entry == mark.as_bytes())).count()
    }
}

impl Going {
    pub(super) async fn finish(self) -> (Finished, Vec<u8>) {
        let finished = tokio::time::timeout(PATIENCE, self.task).await.expect("it ends").unwrap().unwrap();
        let chunks = std::mem::take(&mut *self.sink.chunks.lock().unwrap());
        let stdout = chunks.iter().filter(|(stream, _)| *stream == Stream::Stdout);
        let stdout: Vec<u8> = stdout.flat_map(|(_, chunk)| chunk.iter().copied()).collect();
        assert_eq!(stdout.len() as u64, finished.stdout_bytes);
        (finished, stdout)
    }

    /// Waits until it has printed something.
    pub(super) async fn first_print(&mut self) -> Bytes {
        tokio::time::timeout(PATIENCE, self.prints.recv()).await.expect("it prints").expect("it runs")
    }

    /// Drops the run in the middle.
    pub(super) async fn abandon(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// A plan without limits.
pub(super) fn plan<const N: usize>(argv: [&str; N]) -> CommandPlan {
    CommandPlan {
        job: "job-1".to_owned(),
        argv: argv.iter().map(OsString::from).collect(),
        env: BTreeMap::from([("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())]),
        cwd: "/".into(),
        timeout: None,
        grace: Duration::from_secs(5),
        privileges: Privileges::Fixed,
        escapees: Escapees::Always,
        memory: None,
    }
}

/// A plan for a shell script.
pub(super) fn script(text: &str) -> CommandPlan {
    plan(["/bin/sh", "-c", text])
}

/// Waits until something that gives no signal is so.
pub(super) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process exists and is no zombie.
pub(super) fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

/// What the output says, trimmed.
pub(super) fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap().trim().to_owned()
}
