//! What processes have in memory, and how often the kernel had none left.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

/// What the processes of a session have in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resident {
    /// The sum over its processes, in bytes. What several of them share is counted for each.
    pub(crate) bytes: u64,
    /// Their process ids.
    pub(crate) pids: Vec<i32>,
}

/// Returns what the processes of each session of the machine have in memory, by the id of the session.
///
/// Blocks; it costs a few microseconds per process of the machine.
///
/// # Errors
///
/// When `/proc` can not be listed.
pub(crate) fn resident() -> io::Result<HashMap<i32, Resident>> {
    let page = rustix::param::page_size() as u64;
    let mut sessions: HashMap<i32, Resident> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Who is gone by now has nothing.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((session, pages)) = session_and_pages(&stat) else { continue };
        let there = sessions.entry(session).or_default();
        there.bytes = there.bytes.saturating_add(pages.saturating_mul(page));
        there.pids.push(pid);
    }
    Ok(sessions)
}

/// The sixth and the twenty-fourth field of a `stat`: what stands before is the name, with whatever characters it likes.
fn session_and_pages(stat: &str) -> Option<(i32, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let session = fields.nth(3)?.parse().ok()?;
    Some((session, fields.nth(17)?.parse().ok()?))
}

/// Returns what processes have in memory, in bytes, where what several processes share is shared out among them. Of a process
/// whose pages nobody may see, one of another user or one that is not to be dumped, all that it has is its own.
///
/// Blocks, for longer than [`resident`]: the kernel walks through their pages.
pub(crate) fn shares(pids: &[i32]) -> u64 {
    let page = rustix::param::page_size() as u64;
    let share = |pid: &i32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
        share_in(rollup.as_deref().unwrap_or_default()).or_else(|| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            session_and_pages(&stat)?.1.checked_mul(page)
        })
    };
    pids.iter().filter_map(share).fold(0, u64::saturating_add)
}

fn share_in(rollup: &str) -> Option<u64> {
    let kibibytes = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    kibibytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Counts what the kernel killed because there was no memory left: in the agent's control group and below, where there is
/// such a group, else on the whole machine.
#[derive(Clone, Debug)]
pub(crate) struct KernelKills {
    file: PathBuf,
}

impl KernelKills {
    /// Finds who counts.
    pub(crate) fn find() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let events = own.map(|group| Path::new("/sys/fs/cgroup").join(group).join("memory.events"));
        let events = events.filter(|events| count_in(events).is_some());
        Self { file: events.unwrap_or_else(|| PathBuf::from("/proc/vmstat")) }
    }

    #[cfg(test)]
    pub(crate) fn counted_in(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    /// Returns how many it has killed; nothing where it does not say.
    pub(crate) fn count(&self) -> Option<u64> {
        count_in(&self.file)
    }
}

fn count_in(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_fields() {
        let tail = "S 1 42 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 100 8000000 321 18446744073709551615";
        assert_eq!(session_and_pages(&format!("42 (a) S 1 2 3 ) {tail}")), Some((7, 321)));
        for bad in ["", "42 (a", "42 (a) S 1 2", "42 (a) S 1 2 x 0"] {
            assert_eq!(session_and_pages(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_this_process_has_is_seen() {
        let ballast = vec![1_u8; 32 << 20];
        let own = i32::try_from(std::process::id()).unwrap();
        let sessions = resident().unwrap();
        let mine = sessions.values().find(|session| session.pids.contains(&own)).expect("it lives");
        assert!(mine.bytes > 32 << 20, "{} bytes", mine.bytes);
        assert!(shares(&[own]) > 32 << 20);
        assert_eq!(shares(&[i32::MAX]), 0, "nobody has nothing");
        drop(ballast);
    }

    /// A process whose pages nobody may see counted as nothing, and could have all memory that there is.
    #[test]
    fn of_a_process_that_shows_no_pages_all_that_it_has_counts() {
        assert_eq!(share_in("Rss:  9 kB\nPss:   7 kB\nPss_Dirty: 1 kB\n"), Some(7 * 1024));
        for none in ["", "Rss: 9 kB\n", "Pss: x kB\n", "Pss: 7\n"] {
            assert_eq!(share_in(none), None, "{none}");
        }
    }

    #[test]
    fn the_kernel_tells_how_often_it_killed() {
        assert!(KernelKills::find().count().is_some());
        let file = tempfile::NamedTempFile::new().unwrap();
        let kills = KernelKills::counted_in(file.path());
        assert_eq!(kills.count(), None);
        fs::write(file.path(), "low 1\noom 9\noom_kill 4\noom_group_kill 5\n").unwrap();
        assert_eq!(kills.count(), Some(4));
    }
}
