//! What the machine itself takes, whoever asks: no engine is faster than this.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

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

/// Something to do in a task, with whoever is told of its first step.
type Told = oneshot::Sender<Instant>;

/// The times that a message takes, in nanoseconds, from a caller through two tasks to a third one that is begun for it: as
/// a job goes from its submission through the node's loop and the agent's to the task that runs it. With a place for a
/// file it is written and synced on the way, by a thread of its own, as a submission is; with `again` it is once more, as
/// a claim of its own would be. Nothing else is done, and all sleep between two messages.
pub(crate) async fn hops(n: usize, file: Option<&Path>, again: bool) -> io::Result<Vec<u64>> {
    let file = file.map(|directory| File::create(directory.join("hops"))).transpose()?;
    let (writes, written) = channel::<oneshot::Sender<io::Result<()>>>();
    let writer = file.map(|mut file| {
        std::thread::spawn(move || {
            for done in written {
                let page = [0x5a; PAGE];
                let end = file.write_all(&page).and_then(|()| file.sync_data());
                // Whoever asked has gone where the figure is given up.
                let _ = done.send(end);
            }
        })
    });
    let writes = writer.is_some().then_some(writes);
    let (to_node, mut node) = mpsc::channel::<Told>(16);
    let (to_agent, mut agent) = mpsc::channel::<Told>(16);
    let claims = writes.clone().filter(|_| again);
    tokio::spawn(async move {
        while let Some(told) = node.recv().await {
            if synced(claims.as_ref()).await.is_err() || to_agent.send(told).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(told) = agent.recv().await {
            tokio::spawn(async move {
                // Whoever asked has gone where the figure is given up.
                let _ = told.send(Instant::now());
            });
        }
    });
    let gone = || io::Error::other("a task of the floor has gone");
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let (told, first) = oneshot::channel();
        let before = Instant::now();
        synced(writes.as_ref()).await?;
        to_node.send(told).await.map_err(|_| gone())?;
        let after = first.await.map_err(|_| gone())?;
        times.push(u64::try_from(after.duration_since(before).as_nanos()).unwrap_or(u64::MAX));
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    Ok(times)
}

/// Has the thread write a page, and waits until it is synced.
async fn synced(writes: Option<&std::sync::mpsc::Sender<oneshot::Sender<io::Result<()>>>>) -> io::Result<()> {
    let Some(writes) = writes else { return Ok(()) };
    let (done, end) = oneshot::channel();
    let gone = || io::Error::other("the thread of the floor has gone");
    writes.send(done).map_err(|_| gone())?;
    end.await.map_err(|_| gone())?
}
