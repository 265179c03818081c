//! Stages: named lists of command lines, run in order, timed, never retried.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// One named check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    /// What the summary and `--only` call it.
    pub(crate) name: &'static str,
    /// What is known once it has passed.
    pub(crate) shows: &'static str,
    /// Its command lines, run one after the other.
    pub(crate) steps: &'static [Step],
}

/// One command line of a stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    line: &'static str,
    env: &'static [(&'static str, &'static str)],
    limit: Option<Duration>,
    silence: Option<Duration>,
    must_test: bool,
}

impl Step {
    /// A command line whose words are parted by single spaces; there is no quoting.
    pub(crate) const fn new(line: &'static str) -> Self {
        Self { line, env: &[], limit: None, silence: None, must_test: false }
    }

    /// Adds variables to the command's environment.
    pub(crate) const fn env(self, env: &'static [(&'static str, &'static str)]) -> Self {
        Self { env, ..self }
    }

    /// Kills the command, and fails the stage, when it is not done within `limit`.
    pub(crate) const fn limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Kills the command, and fails the stage, when it prints nothing for as long as `silence`: a test that hangs costs no
    /// more than that, and is named.
    pub(crate) const fn silence(self, silence: Duration) -> Self {
        Self { silence: Some(silence), ..self }
    }

    /// Fails the stage when the command reports no passed test: a filter that matches nothing proves nothing.
    pub(crate) const fn must_test(self) -> Self {
        Self { must_test: true, ..self }
    }

    /// The process to start, in the root of the workspace and with nothing to read.
    fn command(&self) -> Command {
        let mut words = self.line.split(' ');
        let mut command = Command::new(program(words.next().unwrap_or_default()));
        command.args(words).envs(self.env.iter().copied()).current_dir(root()).stdin(Stdio::null());
        command
    }

    /// Runs the command line to its end.
    fn run(&self) -> Result<(), String> {
        let (status, passed) = if self.limit.is_some() || self.silence.is_some() || self.must_test {
            self.run_watched()?
        } else {
            (self.command().status().map_err(|source| self.not_started(&source))?, 0)
        };
        match status.success() {
            false => Err(format!("`{self}` failed: {status}")),
            true if self.must_test && passed == 0 => Err(format!("`{self}` ran no test")),
            true => Ok(()),
        }
    }

    /// Runs the command line while passing its output on, and tells how many tests it reported as passed.
    ///
    /// It counts as done when its standard output is closed, so a process it leaves behind with that output open is
    /// found out by the limits as well. What is late is killed with all that it started.
    fn run_watched(&self) -> Result<(ExitStatus, u64), String> {
        let child = self.command().stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|source| self.not_started(&source))?;
        let heard = pass_on_output(&mut child);
        let end = self.limit.map(|limit| Instant::now() + limit);
        let mut tests = Tests::default();
        let late = loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let Some(wait) = [left, self.silence].into_iter().flatten().min() else {
                match heard.recv() {
                    Ok(line) => tests.hear(&line),
                    Err(_) => break None,
                }
                continue;
            };
            match heard.recv_timeout(wait) {
                Ok(line) => tests.hear(&line),
                Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) if left == Some(wait) => {
                    break self.limit.map(|limit| ("was not done within", limit));
                }
                Err(RecvTimeoutError::Timeout) => break Some(("printed nothing for", wait)),
            }
        };
        if late.is_some() {
            let started = descendants(child.id());
            child.kill().map_err(|source| format!("`{self}` could not be killed: {source}"))?;
            // Most of them end with the command; whoever does not is why it is late.
            let _ = Command::new("kill").arg("-KILL").args(started).stderr(Stdio::null()).status();
        }
        let status = child.wait().map_err(|source| format!("`{self}` was not waited for: {source}"))?;
        match late {
            None => Ok((status, tests.passed)),
            Some((what, time)) => Err(format!("`{self}` {what} {}{tests}", seconds(time))),
        }
    }

    /// What is said of a program that could not be started.
    fn not_started(&self, source: &io::Error) -> String {
        format!("`{self}` did not start: {source}")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.env {
            if value.contains(' ') {
                write!(f, "{name}=\"{value}\" ")
            } else {
                write!(f, "{name}={value} ")
            }?;
        }
        f.write_str(self.line)
    }
}

/// What the output of a command tells of its tests.
#[derive(Debug, Default)]
struct Tests {
    passed: u64,
    /// Those that were said to take long and whose end was not told.
    slow: Vec<String>,
}

impl Tests {
    fn hear(&mut self, line: &str) {
        self.passed += passed_tests(line);
        let Some(rest) = line.trim_end().strip_prefix("test ") else { return };
        if let Some((name, _)) = rest.split_once(" has been running for over") {
            self.slow.push(name.to_owned());
        } else if let Some((name, _)) = rest.split_once(" ... ") {
            self.slow.retain(|slow| slow != name);
        }
    }
}

/// Names the tests that did not end.
impl fmt::Display for Tests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.slow.is_empty() { Ok(()) } else { write!(f, "; under way: {}", self.slow.join(", ")) }
    }
}

/// Copies the output of `child` to ours and sends its lines, until it is closed.
fn pass_on_output(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, heard) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                // Our own output may be gone, and whoever listened out of patience; the child is drained all the same, so
                // that it can end.
                let _ = io::stdout().write_all(&line);
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
        });
    }
    heard
}

/// The processes that a process started, and those that they started, where Linux tells them.
fn descendants(pid: u32) -> Vec<String> {
    // Any of its threads may have started some.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let children = children.collect::<Vec<String>>().join(" ");
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    children.flat_map(|child: u32| [vec![child.to_string()], descendants(child)].concat()).collect()
}

/// How many tests a line of output reports as passed, if it is the closing line of a test binary.
fn passed_tests(line: &str) -> u64 {
    let count = line.strip_prefix("test result: ok. ").and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The program that the first word of a command line stands for: the cargo that runs us, or the word itself.
fn program(word: &str) -> OsString {
    let ours = if word == "cargo" { std::env::var_os("CARGO") } else { None };
    ours.unwrap_or_else(|| word.into())
}

/// The root of the workspace.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Runs `stages` in order until one fails, then prints how long each took.
///
/// # Errors
///
/// The first failure ends the run; the error names the stage.
pub(crate) fn run_in_order(title: &str, stages: &[Stage]) -> Result<(), String> {
    let began = Instant::now();
    let mut times = Vec::with_capacity(stages.len());
    let mut outcome = Ok(());
    for stage in stages {
        println!("\n== {title}: {}: {}", stage.name, stage.shows);
        let started = Instant::now();
        outcome = run_steps(stage.steps).map_err(|problem| format!("stage `{}`: {problem}", stage.name));
        times.push((stage.name, started.elapsed()));
        if outcome.is_err() {
            break;
        }
    }
    println!("\n{}", summary(title, stages, &times, outcome.is_ok(), began.elapsed()));
    outcome
}

/// Runs `steps` in order until one fails.
fn run_steps(steps: &[Step]) -> Result<(), String> {
    steps.iter().try_for_each(|step| {
        println!("$ {step}");
        step.run()
    })
}

/// The closing table: a line for each stage, then the total.
fn summary(
    title: &str,
    stages: &[Stage],
    times: &[(&str, Duration)],
    passed: bool,
    total: Duration,
) -> String {
    let mut lines = vec![format!("{:<14}{:>10}  outcome", title, "time")];
    for (index, stage) in stages.iter().enumerate() {
        let (time, word) = match times.get(index) {
            None => (String::from("-"), "not run"),
            Some((_, time)) if passed || index + 1 < times.len() => (seconds(*time), "passed"),
            Some((_, time)) => (seconds(*time), "FAILED"),
        };
        lines.push(format!("{:<14}{time:>10}  {word}", stage.name));
    }
    lines.push(format!("{:<14}{:>10}", "total", seconds(total)));
    lines.join("\n")
}

/// A duration as the tables show it.
fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(all(test, unix))]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{Stage, Step, run_in_order, summary};

    const PASSES: Stage = Stage { name: "passes", shows: "", steps: &[Step::new("true")] };
    const FAILS: Stage = Stage { name: "fails", shows: "", steps: &[Step::new("false")] };

    #[test]
    fn the_first_failing_stage_ends_the_run_and_is_named() {
        assert_eq!(run_in_order("test", &[PASSES]), Ok(()));
        let problem = run_in_order("test", &[PASSES, FAILS, PASSES]).unwrap_err();
        assert!(problem.starts_with("stage `fails`: `false` failed"), "{problem}");
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let problem = Step::new("hodei-has-no-such-program --now").run().unwrap_err();
        assert!(problem.contains("hodei-has-no-such-program"), "{problem}");
    }

    #[test]
    fn a_limit_kills_what_exceeds_it_and_leaves_the_rest_alone() {
        let problem = Step::new("sleep 60").limit(Duration::from_millis(50)).run().unwrap_err();
        assert!(problem.contains("not done within"), "{problem}");
        assert_eq!(Step::new("echo in time").limit(Duration::from_secs(60)).run(), Ok(()));
        assert!(Step::new("false").limit(Duration::from_secs(60)).run().is_err());
    }

    #[test]
    fn who_falls_silent_is_killed_with_what_it_started_and_the_slow_tests_are_named() {
        let folder = std::env::temp_dir().join(format!("hodei-silence-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let script = folder.join("script");
        let text =
            "echo test a ... ok; for t in a b c; do echo test $t has been running for over 60 seconds; done
             echo test b ... ok; sleep 61 & echo $! > $0.pid; sleep 61";
        std::fs::write(&script, text).unwrap();
        let line: &'static str = format!("sh {}", script.display()).leak();
        let problem = Step::new(line).silence(Duration::from_secs(2)).run().unwrap_err();
        assert!(problem.ends_with("printed nothing for 2.0 s; under way: a, c"), "{problem}");
        let pid = std::fs::read_to_string(folder.join("script.pid")).unwrap();
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let end = Instant::now() + Duration::from_secs(30);
        while lives() {
            assert!(Instant::now() < end, "what it started lives on");
            thread::yield_now();
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(Step::new("echo in time").silence(Duration::from_secs(60)).run(), Ok(()));
    }

    #[test]
    fn a_command_that_must_test_and_tests_nothing_fails() {
        let nothing = Step::new("echo test result: ok. 0 passed; 0 failed").must_test().run().unwrap_err();
        assert!(nothing.contains("ran no test"), "{nothing}");
        assert_eq!(Step::new("echo test result: ok. 3 passed; 0 failed").must_test().run(), Ok(()));
    }

    #[test]
    fn a_step_is_printed_as_one_could_type_it() {
        let step = Step::new("cargo doc").env(&[("RUSTDOCFLAGS", "-D warnings"), ("N", "1")]);
        assert_eq!(step.to_string(), "RUSTDOCFLAGS=\"-D warnings\" N=1 cargo doc");
    }

    #[test]
    fn the_summary_tells_passed_failed_and_not_run_apart() {
        let second = Duration::from_secs(1);
        let stages = [PASSES, FAILS, PASSES];
        let table = summary("ci", &stages, &[("passes", second), ("fails", second)], false, second * 2);
        let words: Vec<Option<&str>> =
            table.lines().skip(1).map(|line| line.split("  ").last().map(str::trim)).collect();
        assert_eq!(words, [Some("passed"), Some("FAILED"), Some("not run"), Some("2.0 s")]);
    }
}
