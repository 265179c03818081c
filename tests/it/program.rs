//! The example programs, built and run as a user would.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Builds an example and returns where it is; with the profile of this test, so that it is mostly built already.
pub(crate) fn example(name: &str) -> PathBuf {
    example_of("hodei-examples", name)
}

/// Builds an example of a package, as [`example`] does.
pub(crate) fn example_of(package: &str, name: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "-p", package, "--example", name]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let output = build
        .arg("--message-format=json")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{name} does not build");
    let lines = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let mut executables = lines.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == name).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executables.next_back().expect("cargo names the executable")
}

/// A running program whose output goes to files: a pipe that nobody reads would stop it.
pub(crate) struct Program {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a program left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    /// Starts a program in a directory; `life` names the files of its output there.
    pub(crate) fn start<A: AsRef<OsStr>>(
        program: &Path,
        directory: &Path,
        life: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let (stdout, stderr) =
            (directory.join(format!("{life}.stdout")), directory.join(format!("{life}.stderr")));
        let file = |path: &Path| Stdio::from(fs::File::create(path).expect("a file for the output"));
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(file(&stdout))
            .stderr(file(&stderr));
        Self { child: command.spawn().expect("the program starts"), stdout, stderr }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Kills it with SIGKILL, unless it has ended.
    pub(crate) fn kill(mut self) -> Ended {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.child.kill();
        self.wait()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the program lives");
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let child = &mut self.child;
        until("the program ends", || child.try_wait().expect("a child").is_some());
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("the output")).into_owned();
        let (stdout, stderr) = (text(&self.stdout), text(&self.stderr));
        Ended { status: self.child.wait().expect("a child"), stdout, stderr }
    }
}

impl Ended {
    /// Returns the exit code; a program that a signal ended has none.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Returns the whole line of standard output that begins with something, without that.
    pub(crate) fn line(&self, begins: &str) -> Option<&str> {
        let mut whole = self.stdout.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        whole.find_map(|line| line.strip_prefix(begins))
    }
}

/// Waits for something that another process does.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < end, "it takes too long until {what}");
        pause(Duration::from_millis(1));
    }
}

/// Returns the processes whose environment carries a variable of this value.
pub(crate) fn marked(name: &str, value: &str) -> Vec<i32> {
    let wanted = format!("{name}={value}");
    let entries = fs::read_dir("/proc").expect("/proc");
    let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|&b| b == 0).any(|entry| entry == wanted.as_bytes())
        })
        .collect()
}

/// Waits for a moment: another process gives no signal.
#[expect(clippy::disallowed_methods, reason = "what another process does is found out by looking")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}
