//! How much memory runs have, and which of them had none left.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::sys::{KernelKills, Resident, resident, shares};

/// How often it is looked what runs have. A look walks through `/proc`, and one serves all runs. Where it takes long the next one
/// waits for so many times as long, up to a second.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_SHARE: u32 = 50;
const LOOK_MAX: Duration = Duration::from_secs(1);
/// A run that has too much is looked at once more after this time: between a fork and the program that follows, two
/// processes can seem to have what one has.
const AGAIN: Duration = Duration::from_millis(5);

/// How often it is noted what the kernel has killed while nobody looks at a run.
const NOTE: Duration = Duration::from_secs(1);

/// What is watched of a run's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryWatch {
    /// How much was set aside for it, in bytes.
    pub(crate) set_aside: u64,
    /// Whether it is killed when it has more.
    pub(crate) hold: bool,
}

/// What was seen of a run.
#[derive(Debug)]
pub(super) struct Seen {
    /// The most memory that it had at once, in bytes; 0 when nobody looked.
    pub(super) peak: u64,
    /// How often the kernel had killed for want of memory at the look before the last one, and at the last one.
    kills: [Option<u64>; 2],
}

impl Seen {
    /// Notes how often the kernel had killed when the run still ran. One of its processes may have been killed just before, and
    /// the run end of that only now, so the look before counts as well.
    fn note(&mut self, kills: Option<u64>) {
        self.kills = [self.kills[1], kills];
    }
}

/// Watches the memory of the runs of one agent.
#[derive(Debug)]
pub(super) struct Memory {
    kills: KernelKills,
    /// How often the kernel had killed when it was asked last. A std mutex: held for a read of a small file.
    counted: Mutex<Option<(Instant, Option<u64>)>>,
    /// The last look. Whoever holds it looks, and those who wait have its answer too.
    last: tokio::sync::Mutex<Option<Look>>,
}

#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    /// When the next one is due, at the earliest.
    next: Instant,
    sessions: Arc<HashMap<i32, Resident>>,
}

impl Memory {
    pub(super) fn new(kills: KernelKills) -> Self {
        Self { kills, counted: Mutex::default(), last: tokio::sync::Mutex::default() }
    }

    /// Begins with a run that is about to start.
    pub(super) fn begin(&self) -> Seen {
        Seen { peak: 0, kills: [self.counted(); 2] }
    }

    /// How often the kernel had killed, a moment ago at most: many runs do not ask each for itself.
    fn counted(&self) -> Option<u64> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        match *counted {
            Some((at, kills)) if at.elapsed() < LOOK => kills,
            _ => {
                let kills = self.kills.count();
                *counted = Some((Instant::now(), kills));
                kills
            }
        }
    }

    /// Whether the kernel has killed for want of memory since the look before the last one. Ask when a run was killed and nobody
    /// here had done it: that it was this run, and no other one that was killed in that moment, is as good as sure.
    pub(super) fn was_starved(&self, seen: &Seen) -> bool {
        let [before, _] = seen.kills;
        self.kills.count().zip(before).is_some_and(|(now, before)| now > before)
    }

    /// Notes for ever what the kernel has killed while a run goes on at whose memory nobody looks: what was killed long before it
    /// ends was another one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was seen is in `seen`.
    pub(super) async fn count_on(&self, seen: &mut Seen) -> Infallible {
        loop {
            sleep(NOTE).await;
            seen.note(self.counted());
        }
    }

    /// Looks at a run until it has more than was set aside for it, if it is held to that; else for ever.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was seen is in `seen`.
    pub(super) async fn watch(&self, session: i32, watch: MemoryWatch, seen: &mut Seen) {
        // Runs that are shorter cost no look.
        sleep(LOOK).await;
        let mut last = Instant::now();
        loop {
            // Where `/proc` cannot be read, nothing is known, and nobody is killed for it.
            let Ok(look) = self.look(last).await else { match self.count_on(seen).await {} };
            last = look.at;
            seen.note(self.counted());
            let Some(there) = look.sessions.get(&session) else { continue };
            if there.bytes <= watch.set_aside.max(seen.peak) {
                seen.peak = seen.peak.max(there.bytes);
                continue;
            }
            let mut least = u64::MAX;
            for wait in [Duration::ZERO, AGAIN] {
                sleep(wait).await;
                let pids = there.pids.clone();
                let exact = tokio::task::spawn_blocking(move || shares(&pids)).await.unwrap_or(0);
                least = least.min(exact);
            }
            seen.peak = seen.peak.max(least);
            if watch.hold && least > watch.set_aside {
                return;
            }
        }
    }

    /// The first look that is later than another one and has been made, or the next one.
    async fn look(&self, after: Instant) -> io::Result<Look> {
        loop {
            let mut last = self.last.lock().await;
            match &*last {
                Some(look) if look.at > after => return Ok(look.clone()),
                Some(look) if look.next > Instant::now() => {
                    let due = look.next;
                    drop(last);
                    tokio::time::sleep_until(due).await;
                    continue;
                }
                _ => {}
            }
            let at = Instant::now();
            let sessions = tokio::task::spawn_blocking(resident).await.map_err(io::Error::other)??;
            let pause = (at.elapsed() * LOOK_SHARE).clamp(LOOK, LOOK_MAX);
            let look = Look { at, next: Instant::now() + pause, sessions: Arc::new(sessions) };
            *last = Some(look.clone());
            return Ok(look);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn what_the_kernel_killed_long_before_a_run_ended_was_another_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let count = |n: u32| fs::write(file.path(), format!("oom_kill {n}\n")).unwrap();
        count(3);
        let memory = Memory::new(KernelKills::counted_in(file.path()));
        let mut seen = memory.begin();
        assert!(!memory.was_starved(&seen));
        count(4);
        assert!(memory.was_starved(&seen));
        seen.note(Some(4));
        assert!(memory.was_starved(&seen), "perhaps it has not ended of that yet");
        seen.note(Some(4));
        assert!(!memory.was_starved(&seen), "it goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_looks_it_is_noted_all_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let count = |n: u32| fs::write(file.path(), format!("oom_kill {n}\n")).unwrap();
        count(3);
        let memory = Memory::new(KernelKills::counted_in(file.path()));
        let mut seen = memory.begin();
        count(4);
        let _ = tokio::time::timeout(Duration::from_millis(2_500), memory.count_on(&mut seen)).await;
        assert!(!memory.was_starved(&seen), "it goes on");
        count(5);
        assert!(memory.was_starved(&seen));
    }

    #[tokio::test]
    async fn one_look_serves_all_who_wait_for_it() {
        let memory = Memory::new(KernelKills::find());
        let begun = Instant::now();
        let (first, second) = tokio::join!(memory.look(begun), memory.look(begun));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(Arc::ptr_eq(&first.sessions, &second.sessions));
        let third = memory.look(first.at).await.unwrap();
        assert!(third.at >= first.at + LOOK, "it is not looked more often");
    }
}
