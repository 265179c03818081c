//! Runs commands as processes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hodei_core::gateway::{News, StopCause};
use hodei_core::job::{
    Command, Exit, Failure, FailureClass, Finish, JobSpec, OUTPUT_INLINE_MAX, Output, Payload, Runs, Stream,
};
use hodei_core::security::{MaskStream, NoMask, SecretMasker};
use hodei_core::store::Input;
use hodei_core::{JobId, Result, SystemClock, Tenant};
use tokio::sync::{Mutex, OnceCell, watch};

use super::executor::{Executor, Run, RunFuture};
use super::handler::failed;
use super::process::{
    CommandPlan, Control, EndedBy, Escapees, Finished, INHERITED_BY_DEFAULT, MemoryWatch, OutputSink,
    Processes, Stop, Stream as Pipe, environment,
};
use crate::log::LogWriter;
use crate::sys::{Exit as SysExit, Privileges};

/// Runs commands as processes: environment cleared, a session of their own, killed with everything they started.
#[derive(Debug)]
pub struct ProcessExecutor {
    work_dir: PathBuf,
    /// Whether the directory is nobody's but this executor's, and goes with it.
    own_dir: bool,
    grace: Duration,
    privileges: Privileges,
    escapees: Escapees,
    hold_to_memory: bool,
    masker: Arc<dyn SecretMasker>,
    processes: OnceCell<Processes>,
}

impl Default for ProcessExecutor {
    fn default() -> Self {
        Self::new()
    }
}

impl ProcessExecutor {
    /// Makes an executor that works in a fresh directory under the system's directory for temporary files.
    #[must_use]
    pub fn new() -> Self {
        let unique = JobId::mint(&Tenant::default(), &SystemClock);
        Self {
            work_dir: std::env::temp_dir().join(format!("hodei-{unique}")),
            own_dir: true,
            grace: Duration::from_secs(5),
            privileges: Privileges::Fixed,
            escapees: Escapees::Always,
            hold_to_memory: false,
            masker: Arc::new(NoMask),
            processes: OnceCell::new(),
        }
    }

    /// Sets where runs keep their files. It also marks the processes: an agent that starts with the directory of one
    /// that was killed ends what that one had left running. Default: a fresh directory for temporary files.
    #[must_use]
    pub fn work_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.work_dir = std::path::absolute(&directory).unwrap_or_else(|_| directory.as_ref().to_owned());
        self.own_dir = false;
        self
    }

    /// Sets how long a process may take to end after it was asked to. Default: 5 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Looks for processes that left a run's session only where there is a sign of them, not after every run: faster
    /// for tiny commands that are trusted. Default: after every run.
    #[must_use]
    pub fn trusting(mut self) -> Self {
        self.escapees = Escapees::OnSuspicion;
        self
    }

    /// Kills commands that have more memory than was set aside for them, as all processes of their session together have it
    /// resident. Default: they are measured, so that later jobs can be given more, and not held to it.
    ///
    /// It is looked ten times a second, or once a second at least on a machine with very much to look at, so what grows faster has
    /// more for a moment, and what was over before the first look is not killed. A command that asks for no memory is not held
    /// to any. The run ends with [`FailureClass::OutOfMemory`], as one does that the kernel kills for want of memory.
    #[must_use]
    pub fn hold_to_memory(mut self) -> Self {
        self.hold_to_memory = true;
        self
    }

    /// Lets commands gain rights, by set-user-id programs for one. Default: they cannot.
    #[must_use]
    pub fn may_gain_rights(mut self) -> Self {
        self.privileges = Privileges::MayGain;
        self
    }

    /// Sets what keeps secrets out of the logs. Default: nothing; commands that name secrets are refused.
    #[must_use]
    pub fn masker(mut self, masker: Arc<dyn SecretMasker>) -> Self {
        self.masker = masker;
        self
    }

    /// Ends what an earlier life of this agent has left running; before the first run.
    pub(crate) async fn recover(&self) -> Result<()> {
        let io = |source| {
            let error = hodei_core::Error::new(hodei_core::ErrorKind::Io, "agent.start");
            error.with("work_dir", self.work_dir.display()).source_error(source)
        };
        std::fs::create_dir_all(&self.work_dir).map_err(io)?;
        self.processes().await.map_err(io)?.sweep_all().await.map_err(io)?;
        remove_left_runs(&self.work_dir).map_err(io)
    }

    async fn processes(&self) -> std::io::Result<&Processes> {
        let mark = self.work_dir.to_string_lossy().into_owned();
        self.processes.get_or_try_init(|| async { Processes::start(mark) }).await
    }

    async fn run(&self, run: Run) -> News {
        let spec = Arc::clone(&run.job().spec);
        let Payload::Command(command) = spec.payload() else {
            return failed(FailureClass::BadInput, "this executor runs commands");
        };
        if let Some(refusal) = refusal(command) {
            return failed(FailureClass::BadInput, refusal);
        }
        let files = match Files::make(&self.work_dir, &run) {
            Ok(files) => files,
            Err(error) => return failed(FailureClass::Workspace, format!("no place to work in: {error}")),
        };
        let logs = [run.log(Stream::Stdout), run.log(Stream::Stderr)];
        let sink =
            Arc::new(Sink { streams: logs.map(|log| Mutex::new((self.masker.begin(&[]), Some(log)))) });
        let finished =
            self.supervise(&run, &spec, command, &files, Arc::clone(&sink) as Arc<dyn OutputSink>).await;
        let mut writers = sink.end().await;
        let mut finish = match finished {
            Ok(finished) => {
                let mut remarks = run.log(Stream::System);
                remarks.write(&remark(&finished));
                writers.push(remarks);
                Finish { memory: finished.memory, ..judge(&run, &spec, command, &files, &finished) }
            }
            Err(message) => Finish::failed(Failure::new(FailureClass::Spawn, message)),
        };
        finish.manifest = Run::manifest(writers);
        files.remove();
        News::Ended(Box::new(finish))
    }

    async fn supervise(
        &self,
        run: &Run,
        spec: &JobSpec,
        command: &Command,
        files: &Files,
        output: Arc<dyn OutputSink>,
    ) -> std::result::Result<Finished, String> {
        let processes = self.processes().await.map_err(|error| error.to_string())?;
        let cwd = command.more.as_ref().and_then(|more| more.cwd.as_deref());
        let plan = CommandPlan {
            job: format!("{}-{}", run.job().id, run.job().epoch),
            argv: command.argv.iter().map(OsString::from).collect(),
            env: variables(run, command, files),
            cwd: cwd.map_or_else(|| files.directory.clone(), PathBuf::from),
            timeout: spec.timeout(),
            grace: self.grace,
            privileges: self.privileges,
            escapees: self.escapees,
            memory: (run.memory() > 0)
                .then(|| MemoryWatch { set_aside: run.memory(), hold: self.hold_to_memory }),
        };
        let (stop, stopped) = watch::channel(Stop::Run);
        let ended = processes.run(plan, Control { stop: stopped, output });
        tokio::pin!(ended);
        loop {
            let wish = *stop.borrow();
            tokio::select! {
                finished = &mut ended => return finished.map_err(|error| error.to_string()),
                why = run.stop().wait(), if wish == Stop::Run => {
                    stop.send_replace(match why {
                        StopCause::Cancelled => wish.escalated(),
                        // Somebody else runs it now, or is about to.
                        StopCause::LeaseLost => Stop::Kill,
                    });
                }
            }
        }
    }
}

impl Executor for ProcessExecutor {
    fn runs(&self) -> Vec<Runs> {
        vec![Runs::Command]
    }

    fn execute(self: Arc<Self>, run: Run) -> RunFuture {
        Box::pin(async move { self.run(run).await })
    }
}

/// What this executor cannot do, so that it is not done by halves.
fn refusal(command: &Command) -> Option<&'static str> {
    let more = command.more.as_ref()?;
    if !more.secrets.is_empty() {
        Some("this agent has no source of secrets")
    } else if more.image.is_some() {
        Some("this agent has no images")
    } else {
        None
    }
}

fn variables(run: &Run, command: &Command, files: &Files) -> BTreeMap<OsString, OsString> {
    let host: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let own: BTreeMap<String, String> =
        command.env.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let mut hodei = BTreeMap::from([
        ("HODEI_ATTEMPT".to_owned(), (run.job().attempt + 1).to_string()),
        ("HODEI_EPOCH".to_owned(), run.job().epoch.to_string()),
        ("HODEI_INPUTS".to_owned(), shown(&files.inputs)),
        ("HODEI_OUTPUT".to_owned(), shown(&files.output)),
    ]);
    if run.memory() > 0 {
        hodei.insert("HODEI_MEMORY".to_owned(), run.memory().to_string());
    }
    if !run.beside().is_empty() {
        let beside: Vec<&str> = run.beside().iter().map(|peer| peer.worker.as_str()).collect();
        hodei.insert("HODEI_BESIDE".to_owned(), beside.join(","));
    }
    environment(&host, &INHERITED_BY_DEFAULT, &own, &hodei)
}

/// What the run's own log says of its end.
fn remark(finished: &Finished) -> Bytes {
    let Finished { usage, duration, .. } = finished;
    let exit = match finished.exit {
        SysExit::Code(code) => format!("exit code {code}"),
        SysExit::Signal { number, core_dumped: false } => format!("signal {number}"),
        SysExit::Signal { number, core_dumped: true } => format!("signal {number}, core dumped"),
    };
    let mut text = format!(
        "{exit} after {duration:?}: user {:?}, system {:?}, {} bytes out, {} bytes err",
        usage.user, usage.system, finished.stdout_bytes, finished.stderr_bytes
    );
    // Writing to a String cannot fail.
    if let Some(bytes) = finished.memory {
        let _ = write!(text, ", {bytes} bytes resident");
    }
    if finished.leaked {
        text.push_str("; something still held its output open, some may be missing");
    }
    if finished.escapees > 0 {
        let _ = write!(text, "; {} processes had left its session and were killed", finished.escapees);
    }
    if !finished.contained {
        text.push_str("; some of its processes may be left");
    }
    text.push('\n');
    text.into()
}

/// Says how the job ended by how its process ended and by what it left.
fn judge(run: &Run, spec: &JobSpec, command: &Command, files: &Files, finished: &Finished) -> Finish {
    let (class, exit) = match finished.exit {
        SysExit::Code(code) => (FailureClass::Exit, Exit::Code(code)),
        SysExit::Signal { number, .. } => (FailureClass::Signal, Exit::Signal(number)),
    };
    match finished.ended_by {
        EndedBy::Stop if run.stop().stopped().is_some() => return Finish::cancelled(),
        EndedBy::Timeout => {
            let message = format!("it took longer than {:?}", spec.timeout().unwrap_or_default());
            return Finish::failed(Failure::new(FailureClass::Timeout, message).exit(exit));
        }
        EndedBy::Memory => {
            let message = format!("it had {} bytes, more than was set aside", finished.memory.unwrap_or(0));
            return Finish::failed(Failure::new(FailureClass::OutOfMemory, message).exit(exit));
        }
        EndedBy::Itself if finished.starved => {
            let message = "the kernel killed it, since there was no memory left";
            return Finish::failed(Failure::new(FailureClass::OutOfMemory, message).exit(exit));
        }
        EndedBy::Itself | EndedBy::Stop => {}
    }
    if exit != Exit::Code(0) {
        return Finish::failed(Failure::new(class, exit.to_string()).exit(exit));
    }
    match files.read_output(command) {
        Ok(output) => Finish::succeeded(Output::Inline(output)),
        Err(message) => Finish::failed(Failure::new(FailureClass::BadOutput, message).exit(exit)),
    }
}

impl Drop for ProcessExecutor {
    fn drop(&mut self) {
        if self.own_dir {
            // Only when it is empty; it may never have been made.
            let _ = std::fs::remove_dir(&self.work_dir);
        }
    }
}

/// Removes the directories of runs that an earlier life of this agent was killed in; they are named by job and epoch.
fn remove_left_runs(work_dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(work_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let parts = name.to_str().and_then(|name| name.rsplit_once('-'));
        let of_a_run =
            parts.is_some_and(|(id, epoch)| id.parse::<JobId>().is_ok() && epoch.parse::<u64>().is_ok());
        if of_a_run && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The files of a run.
struct Files {
    directory: PathBuf,
    inputs: PathBuf,
    output: PathBuf,
}

impl Files {
    /// Makes a fresh directory with the inputs in it.
    fn make(work_dir: &Path, run: &Run) -> std::io::Result<Self> {
        let directory = work_dir.join(format!("{}-{}", run.job().id, run.job().epoch));
        std::fs::create_dir_all(&directory)?;
        let (inputs, output) = (directory.join("inputs.json"), directory.join("output.json"));
        std::fs::write(&inputs, inputs_json(run.inputs()))?;
        Ok(Self { directory, inputs, output })
    }

    /// Reads what the command gave back: one JSON object of strings, with every declared name.
    fn read_output(&self, command: &Command) -> std::result::Result<Bytes, String> {
        let declared: Vec<&str> = command.more.iter().flat_map(|more| more.outputs.iter()).collect();
        let bytes =
            read_regular(&self.output).map_err(|error| format!("the output file cannot be read: {error}"))?;
        if bytes.len() > OUTPUT_INLINE_MAX {
            return Err(format!("the output file has more than the {OUTPUT_INLINE_MAX} bytes that are kept"));
        }
        let given: BTreeMap<String, String> = if bytes.is_empty() {
            BTreeMap::new()
        } else {
            serde_json::from_slice(&bytes)
                .map_err(|error| format!("the output file is not a JSON object of strings: {error}"))?
        };
        let missing: Vec<&str> = declared.into_iter().filter(|name| !given.contains_key(*name)).collect();
        if missing.is_empty() {
            Ok(bytes.into())
        } else {
            Err(format!("it did not write {}", missing.join(", ")))
        }
    }

    fn remove(self) {
        // What stays behind is in the way of nobody: the directory is of this run alone.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Reads a file that a command wrote, no further than the first byte that is too many; nothing where there is none. The
/// command may have put anything there: links are not followed, and nothing that is no file is waited for.
fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(OUTPUT_INLINE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The inputs as one JSON object: what each direct parent gave back, by its name.
fn inputs_json(inputs: &[Input]) -> Vec<u8> {
    let value = |input: &Input| -> serde_json::Value {
        let bytes = input.output.inline().filter(|bytes| !bytes.is_empty());
        let parsed = bytes.and_then(|bytes| serde_json::from_slice(bytes).ok());
        parsed.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()))
    };
    let object: serde_json::Map<String, serde_json::Value> =
        inputs.iter().map(|input| (input.name.to_string(), value(input))).collect();
    serde_json::Value::Object(object).to_string().into_bytes()
}

/// Takes the output of a process through the mask into the log.
struct Sink {
    /// Standard output and standard error; a tokio mutex because it is held where the process is read.
    streams: [Mutex<Masked>; 2],
}

/// A stream on its way through the mask; its writer is taken at its end.
type Masked = (Box<dyn MaskStream>, Option<LogWriter>);

impl Sink {
    async fn end(&self) -> Vec<LogWriter> {
        let mut writers = Vec::new();
        for stream in &self.streams {
            let mut stream = stream.lock().await;
            let rest = stream.0.finish();
            if let Some(mut writer) = stream.1.take() {
                writer.write(&rest);
                writers.push(writer);
            }
        }
        writers
    }
}

#[async_trait]
impl OutputSink for Sink {
    async fn accept(&self, pipe: Pipe, chunk: Bytes) {
        let mut stream = match pipe {
            Pipe::Stdout => self.streams[0].lock().await,
            Pipe::Stderr => self.streams[1].lock().await,
        };
        let shown = stream.0.push(chunk);
        if let Some(writer) = &mut stream.1 {
            writer.write(&shown);
        }
    }
}
