//! Finding processes by the mark in their environment, and killing them.
//!
//! A process that left the group (`setsid`, a double fork) and one that outlived a killed agent still carry the
//! environment their job was started with. Out of reach are a process that was started with another environment
//! (`env -i`) outside the group, and one of another user; only a control group holds those.
//!
//! A process can run ahead of a reader of `/proc`: it forks and exits, and its child is where the reader has been.
//! Two observations make a look that finds nothing a proof all the same:
//!
//! * the child's id is new, so once through, a look goes on with the ids given away since it began, until there are
//!   none (`/proc/loadavg` ends with the last one); a child not visible yet has a parent that is;
//! * during its `execve` a process shows no environment, which is told apart from having an empty one: such a process
//!   is looked at until it shows what it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    num::NonZeroI32,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal},
};

/// The variable that says which agent a process belongs to.
pub(crate) const MARK_VARIABLE: &str = "HODEI_MARK";
/// The variable that says which job a process belongs to.
pub(crate) const JOB_VARIABLE: &str = "HODEI_JOB";

/// The room for an environment, at first and at most. The kernel allows 6 MiB.
const ENVIRON_BYTES: usize = 64 * 1024;
const ENVIRON_LIMIT: usize = 8 * 1024 * 1024;
/// How many of the last ids given away may be of forks under way when a look begins.
const FORKS_UNDER_WAY: i32 = 64;
/// How long one round waits for those it killed before it looks again.
const ROUND: Duration = Duration::from_millis(200);

/// How often a process is looked at until its `execve` is over.
const EXECVE_INTERVAL: Duration = Duration::from_millis(1);
/// The kernel's flag of a thread of its own.
const PF_KTHREAD: u64 = 0x0020_0000;
/// The kernel's flag of a process that is ending.
const PF_EXITING: u64 = 0x0000_0004;

/// Whose processes to kill.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Jobs<'a> {
    /// Those of every job with the mark.
    All,
    /// Those of these jobs with the mark.
    Only(&'a BTreeSet<String>),
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// How many processes of each job it killed.
    pub(crate) killed: BTreeMap<String, usize>,
    /// Whether the last look found none; `false` when the time was over first.
    pub(crate) clean: bool,
}

impl Swept {
    /// How many processes the sweep killed.
    #[cfg(test)]
    pub(crate) fn total(&self) -> usize {
        self.killed.values().sum()
    }

    fn new(killed: BTreeMap<NonZeroI32, String>, clean: bool) -> Self {
        let mut per_job = BTreeMap::new();
        for job in killed.into_values() {
            *per_job.entry(job).or_insert(0) += 1;
        }
        Self { killed: per_job, clean }
    }
}

/// A process with the mark, which has been killed.
struct Marked {
    pid: Pid,
    pidfd: OwnedFd,
    job: String,
}

/// Kills every process whose environment has exactly this mark, and looks again until there is none.
///
/// The calling process is spared: an agent can be a job of another. Blocks; a look costs a few microseconds per
/// process of the machine.
///
/// # Errors
///
/// When `/proc` can not be listed.
pub(crate) fn sweep(mark: &str, jobs: Jobs<'_>, within: Duration) -> io::Result<Swept> {
    let deadline = Instant::now() + within;
    // By process, for one that is slow to die is met again.
    let mut killed = BTreeMap::new();
    loop {
        let mut look =
            Look { mark, jobs, deadline, environ: vec![0; ENVIRON_BYTES], found: Vec::new(), settled: true };
        look.everywhere()?;
        let clean = look.found.is_empty() && look.settled;
        if clean || Instant::now() >= deadline {
            killed.extend(look.found.into_iter().map(|Marked { pid, job, .. }| (pid.as_raw_nonzero(), job)));
            return Ok(Swept::new(killed, clean));
        }
        for Marked { pid, pidfd, job } in look.found {
            wait_for_exit(&pidfd, ROUND.min(deadline.saturating_duration_since(Instant::now())));
            killed.insert(pid.as_raw_nonzero(), job);
        }
    }
}

/// One look over the processes of the machine, killing those with the mark.
struct Look<'a> {
    mark: &'a str,
    jobs: Jobs<'a>,
    deadline: Instant,
    /// A buffer.
    environ: Vec<u8>,
    found: Vec<Marked>,
    /// Whether every process met could be told to carry the mark or not.
    settled: bool,
}

/// What the environment of a process says.
enum Sight {
    /// It carries the mark, for this job.
    Marked(String),
    /// It does not, or is gone, dead, or not ours to look at.
    Other,
    /// It is between two programs and shows nothing.
    Unsettled,
}

impl Look<'_> {
    /// Looks at every process there is, and at every one that has come since.
    fn everywhere(&mut self) -> io::Result<()> {
        let mut seen = last_pid().map(|pid| pid.saturating_sub(FORKS_UNDER_WAY).max(0));
        for entry in fs::read_dir("/proc")? {
            if let Some(pid) = entry.ok().and_then(|entry| pid_of(&entry.file_name())) {
                self.at(pid);
            }
        }
        // Each turn is as much shorter as it had fewer to look at.
        while let (Some(from), Some(to)) = (seen, last_pid()) {
            if from == to {
                break;
            }
            if to < from || Instant::now() >= self.deadline {
                // Ids have begun again at the bottom: the next look is at all of them.
                self.settled = false;
                break;
            }
            (from + 1..=to).filter_map(Pid::from_raw).for_each(|pid| self.at(pid));
            seen = Some(to);
        }
        Ok(())
    }

    /// Looks at one process, and kills it if it carries the mark.
    fn at(&mut self, pid: Pid) {
        if pid == rustix::process::getpid() || matches!(self.sight(pid), Sight::Other) {
            return;
        }
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
        loop {
            // The process may have ended and its id been given away before the pidfd was opened. If the process
            // behind the pidfd lives until the signal, this look was at it; if it does not, the signal goes nowhere.
            match self.sight(pid) {
                Sight::Other => return,
                Sight::Marked(job) => {
                    if rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
                        self.found.push(Marked { pid, pidfd, job });
                    }
                    return;
                }
                Sight::Unsettled if Instant::now() >= self.deadline => {
                    self.settled = false;
                    return;
                }
                Sight::Unsettled => wait_for_exit(&pidfd, EXECVE_INTERVAL),
            }
        }
    }

    fn sight(&mut self, pid: Pid) -> Sight {
        let Some(environ) = read_environ(pid, &mut self.environ) else { return Sight::Other };
        match job_in(environ, self.mark, self.jobs) {
            Some(job) => Sight::Marked(job),
            None if environ.is_empty() && has_more_to_show(pid) => Sight::Unsettled,
            None => Sight::Other,
        }
    }
}

/// Reads an environment in one call, for the kernel holds the memory of the process during a call: between two of
/// them the process may end or become another program, and leave half of the text.
fn read_environ(pid: Pid, buffer: &mut Vec<u8>) -> Option<&[u8]> {
    let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
    loop {
        let length = File::open(&path).ok()?.read(buffer).ok()?;
        if length < buffer.len() || buffer.len() >= ENVIRON_LIMIT {
            return Some(&buffer[..length]);
        }
        buffer.resize(buffer.len() * 2, 0);
    }
}

/// The id given away last in this namespace, where the kernel tells.
fn last_pid() -> Option<i32> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next_back()?.parse().ok()
}

fn pid_of(name: &OsStr) -> Option<Pid> {
    Pid::from_raw(name.to_str()?.parse().ok()?)
}

/// Whether a process that showed no environment may show one yet, from `/proc/pid/stat`.
fn has_more_to_show(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .is_ok_and(|stat| stat_has_more_to_show(&stat))
}

/// A program started with an empty environment has it somewhere, beginning where it ends. In `execve` the new memory
/// has none yet (its end is at 0); afterwards there may be one that was not there a moment ago. Kernel threads and
/// the dying have none and will not get one.
fn stat_has_more_to_show(stat: &str) -> bool {
    // From the third field on: the second is a name in parentheses and may contain anything.
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    let (Some(state), Some(flags), Some(start), Some(end)) =
        (fields.first(), number(9), number(50), number(51))
    else {
        return false;
    };
    let can_run = !matches!(*state, "Z" | "X") && flags & (PF_KTHREAD | PF_EXITING) == 0;
    can_run && (end == 0 || start != end)
}

/// The job named in an environment, as the kernel shows it, if it has the mark and is one of `jobs`.
fn job_in(environ: &[u8], mark: &str, jobs: Jobs<'_>) -> Option<String> {
    if !values(environ, MARK_VARIABLE).any(|value| value == mark.as_bytes()) {
        return None;
    }
    let mut named = values(environ, JOB_VARIABLE).map(String::from_utf8_lossy);
    match jobs {
        Jobs::All => Some(named.next().unwrap_or_default().into_owned()),
        Jobs::Only(jobs) => named.find(|job| jobs.contains(job.as_ref())).map(Into::into),
    }
}

fn values<'a>(environ: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let entries = environ.split(|byte| *byte == 0);
    entries.filter_map(move |entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn wait_for_exit(pidfd: &OwnedFd, within: Duration) {
    let within = Timespec::try_from(within).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    // However it ends, the next look over /proc tells.
    let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&within));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_compared_whole() {
        let environ = b"A=1\0HODEI_MARK=agent-1\0HODEI_JOB=j\0XHODEI_MARK=other\0";
        let check = |mark, jobs| job_in(environ, mark, jobs);
        let job = BTreeSet::from(["j".to_owned()]);
        let other = BTreeSet::from(["jj".to_owned()]);
        assert_eq!(check("agent-1", Jobs::All).as_deref(), Some("j"));
        assert_eq!(check("agent-1", Jobs::Only(&job)).as_deref(), Some("j"));
        assert_eq!(check("agent-1", Jobs::Only(&other)), None);
        assert_eq!(check("agent", Jobs::All), None);
        assert_eq!(check("agent-11", Jobs::All), None);
        assert_eq!(check("other", Jobs::All), None);
        assert_eq!(job_in(b"", "", Jobs::All), None);
    }

    #[test]
    fn execve_is_told_from_an_empty_environment() {
        let check = |state: &str, flags: u64, start: u64, end: u64| {
            let zeros = |count: usize| "0 ".repeat(count);
            let stat = format!("7 (a) b) {state} {}{flags} {}{start} {end} 0", zeros(5), zeros(40));
            stat_has_more_to_show(&stat)
        };
        assert!(check("R", 0x40_0000, 0, 0));
        assert!(check("R", 0x40_0000, 1000, 2000));
        assert!(!check("R", 0x40_0000, 1000, 1000));
        assert!(!check("S", PF_KTHREAD, 0, 0));
        assert!(!check("R", PF_EXITING, 0, 0));
        assert!(!check("Z", 0, 0, 0));
        assert!(!stat_has_more_to_show(""));
    }
}
