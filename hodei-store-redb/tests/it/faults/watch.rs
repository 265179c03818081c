//! Tells what was under way when a test fails or stands still.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longer than anything here takes that comes to an end.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Told {
    what: Mutex<String>,
    times: AtomicU64,
    over: AtomicBool,
}

/// Who watches. Nothing can be done about a thread that stands still, but to say where and to end the process.
#[derive(Debug)]
pub(crate) struct Watch {
    told: Arc<Told>,
    seed: u64,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn begin(seed: u64) -> Self {
        let told = Arc::new(Told::default());
        let thread = std::thread::spawn({
            let told = Arc::clone(&told);
            move || watch(&told, seed)
        });
        Self { told, seed, thread: Some(thread) }
    }

    /// Says what comes next.
    pub(crate) fn tell(&self, what: String) {
        *self.told.what.lock().unwrap_or_else(PoisonError::into_inner) = what;
        self.told.times.fetch_add(1, Ordering::Relaxed);
    }
}

fn watch(told: &Told, seed: u64) {
    let mut last = 0;
    loop {
        std::thread::park_timeout(PATIENCE);
        if told.over.load(Ordering::Acquire) {
            return;
        }
        let now = told.times.load(Ordering::Relaxed);
        if now == last {
            let what = told.what.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("seed {seed} stands still: {what}");
            std::process::exit(70);
        }
        last = now;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = self.told.what.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("seed {}: {what}", self.seed);
        }
        self.told.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to say any more.
            drop(thread.join());
        }
    }
}
