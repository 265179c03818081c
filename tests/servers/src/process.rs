//! A server as the operating system sees it: a process, its descendants, and how to start it again.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::find::Account;
use crate::{StartError, spawner, wait};

/// How a server is started, and how one learns that it answers.
pub(crate) struct Recipe {
    /// Its name, for messages.
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// Who it runs as, if not as the test.
    pub(crate) account: Option<Account>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// Whether the server with this process id answers.
    pub(crate) answers: Box<dyn Fn(i32) -> bool + Send + Sync>,
}

/// A server that can be stopped and started again.
pub(crate) struct Process {
    recipe: Recipe,
    /// Locked while a signal is sent or the end awaited, so that nobody signals a process id that is another's by then.
    child: Mutex<Option<Child>>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("name", &self.recipe.name).field("pid", &self.pid()).finish()
    }
}

impl Process {
    /// Starts it and waits until it answers.
    pub(crate) fn start(recipe: Recipe) -> Result<Self, StartError> {
        let process = Self { recipe, child: Mutex::new(None) };
        process.run()?;
        Ok(process)
    }

    /// Starts it again, unless it runs, and waits until it answers.
    pub(crate) fn run(&self) -> Result<(), StartError> {
        let mut child = self.lock();
        if child.is_some() {
            return Ok(());
        }
        let mut started = self.spawn()?;
        let pid = pid_of(&started).as_raw_pid();
        let mut ended = false;
        let answers = wait::until(|| {
            ended = !matches!(started.try_wait(), Ok(None));
            ended || (self.recipe.answers)(pid)
        });
        if !answers || ended {
            signal_all(&family(pid_of(&started)), Signal::KILL);
            let _ = started.wait();
            return Err(StartError::Silent { program: self.recipe.name, log: self.log_end() });
        }
        *child = Some(started);
        Ok(())
    }

    fn spawn(&self) -> Result<Child, StartError> {
        let Recipe { program, args, account, log, .. } = &self.recipe;
        let file = File::options().create(true).append(true).open(log);
        let file = file.map_err(StartError::io(format!("open {}", log.display())))?;
        let errors = file.try_clone().map_err(StartError::io("share the log"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(account) = account {
            command.args(["--reuid", account.name, "--regid", account.name, "--init-groups"]);
        }
        command.arg("--").arg(program).args(args);
        command.stdin(Stdio::null()).stdout(file).stderr(errors).current_dir("/").process_group(0);
        spawner::spawn(command).map_err(StartError::io("start setpriv (of the package util-linux)"))
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.lock().as_ref().map(|child| pid_of(child).as_raw_pid())
    }

    /// Kills the server and all of its descendants at once, as the end of the machine's power does but for what the kernel
    /// still writes.
    pub(crate) fn kill(&self) {
        let mut child = self.lock();
        let Some(mut child) = child.take() else { return };
        let root = pid_of(&child);
        // First it must not make further children.
        let _ = kill_process(root, Signal::STOP);
        let family = family(root);
        signal_all(&family, Signal::KILL);
        let _ = child.wait();
        wait::until(|| family.iter().all(|pid| !is_alive(*pid)));
    }

    /// Asks the server to end with `signal`, and kills it if it does not within [`wait::PATIENCE`].
    pub(crate) fn stop(&self, signal: Signal) {
        {
            let mut child = self.lock();
            let Some(running) = child.as_mut() else { return };
            let root = pid_of(running);
            let family = family(root);
            let _ = kill_process(root, signal);
            // One that is frozen hears nothing before it goes on.
            signal_all(&family, Signal::CONT);
            if wait::until(|| !matches!(running.try_wait(), Ok(None))) {
                wait::until(|| family.iter().all(|pid| !is_alive(*pid)));
                *child = None;
                return;
            }
        }
        self.kill();
    }

    /// Sends a signal to the server and all of its descendants.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(child) = self.lock().as_ref() {
            let root = pid_of(child);
            let _ = kill_process(root, signal);
            signal_all(&family(root), signal);
        }
    }

    fn log_end(&self) -> String {
        let text = std::fs::read(&self.recipe.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn signal_all(family: &[Pid], signal: Signal) {
    for pid in family {
        // It may be gone already.
        let _ = kill_process(*pid, signal);
    }
}

/// A process and its descendants.
fn family(root: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, Pid)> = processes().collect();
    let mut family = vec![root];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

/// Every process with its parent.
fn processes() -> impl Iterator<Item = (Pid, Pid)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        Some((Pid::from_raw(pid)?, Pid::from_raw(stat(pid)?.1)?))
    })
}

/// Whether a process has not ended; one that waits to be reaped has.
fn is_alive(pid: Pid) -> bool {
    stat(pid.as_raw_pid()).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// The state of a process and its parent. The name before them is in brackets and may hold anything.
fn stat(pid: i32) -> Option<(char, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
