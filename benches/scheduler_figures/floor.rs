//! What the machine itself takes, whoever asks: no engine is faster than this.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much a synced write writes: a page.
const PAGE: usize = 4_096;

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The times from waking a thread to its first step, in nanoseconds; it has slept a while each time.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing is waited for: the other thread is to have gone to sleep"
)]
pub(crate) fn wake_ups(n: usize) -> Vec<u64> {
    let start = Instant::now();
    // 0 while the thread sleeps, what the clock showed at its first step else.
    let woken = Arc::new(AtomicU64::new(0));
    let sleeper = {
        let woken = Arc::clone(&woken);
        std::thread::spawn(move || {
            for _ in 0..n {
                std::thread::park();
                woken.store(nanos(start).max(1), Ordering::Release);
            }
        })
    };
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        std::thread::sleep(Duration::from_micros(300));
        let before = nanos(start);
        sleeper.thread().unpark();
        let after = loop {
            match woken.swap(0, Ordering::Acquire) {
                0 => std::hint::spin_loop(),
                after => break after,
            }
        };
        times.push(after.saturating_sub(before));
    }
    sleeper.join().expect("it only sleeps");
    times
}

/// The times of synced writes of a page behind each other, in nanoseconds.
pub(crate) fn synced_writes(directory: &Path, n: usize) -> io::Result<Vec<u64>> {
    let mut file = File::create(directory.join("floor"))?;
    let page = [0x5a; PAGE];
    (0..n)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&page)?;
            file.sync_data()?;
            Ok(nanos(start))
        })
        .collect()
}
