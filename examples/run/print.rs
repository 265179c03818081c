//! Standard output, written by a thread of its own: a terminal that stands still must not hold up the run.

use std::io::Write as _;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

/// How many lines wait for the terminal at most; beyond it whoever shows something waits.
const LINES: usize = 4_096;

/// The way to standard output.
pub(crate) struct Printer {
    lines: mpsc::Sender<String>,
    thread: JoinHandle<()>,
}

impl Printer {
    /// Starts the thread.
    pub(crate) fn start() -> Self {
        let (lines, mut waiting) = mpsc::channel::<String>(LINES);
        let thread = std::thread::spawn(move || {
            let mut out = std::io::stdout();
            while let Some(line) = waiting.blocking_recv() {
                // A terminal that is gone must not stop the run.
                let _ = writeln!(out, "{line}");
            }
        });
        Self { lines, thread }
    }

    /// Returns what lines are sent to.
    pub(crate) fn lines(&self) -> mpsc::Sender<String> {
        self.lines.clone()
    }

    /// Shows a line, whole, so that steps do not mix.
    pub(crate) async fn line(&self, line: impl Into<String>) {
        show(&self.lines, line).await;
    }

    /// Waits until everything is shown; every other sender must be gone.
    pub(crate) fn end(self) {
        drop(self.lines);
        // A thread that panicked shows nothing more.
        let _ = self.thread.join();
    }
}

/// Shows a line.
pub(crate) async fn show(lines: &mpsc::Sender<String>, line: impl Into<String>) {
    // The thread lives as long as somebody can send.
    let _ = lines.send(line.into()).await;
}
