//! Reading what a job prints.

use std::{cell::RefCell, io, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    net::unix::pipe,
    sync::watch,
    time::{Instant, sleep_until},
};

/// The most bytes of one chunk: what a pipe holds by default.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// How long after the death of a group its output is waited for. All that the group wrote is in the pipe by then, so
/// only a process outside it can need longer.
pub(super) const LEAK_BOUND: Duration = Duration::from_secs(1);
/// How much is read after that bound, if it is there without waiting: as much as the largest pipe of an unprivileged
/// process can hold. More is being written now, by a process outside the group.
const LATE_BYTES: usize = 1024 * 1024;

/// One of the two outputs of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes the output of a run.
#[async_trait]
pub(crate) trait OutputSink: Send + Sync {
    /// Takes a chunk of at most 64 KiB: any bytes, in the order of their stream, never empty.
    ///
    /// # Behavior
    ///
    /// The stream is not read on until this returns, and the process stops when its pipe is full. A sink that never
    /// returns keeps the run from finishing, but not the process from being stopped.
    async fn accept(&self, stream: Stream, chunk: Bytes);
}

/// The end of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drained {
    pub(super) bytes: u64,
    /// Whether reading stopped before the end of file.
    pub(super) leaked: bool,
}

/// Reads a stream to its end, or to [`LEAK_BOUND`] after `dead`, the moment since which the group is dead.
pub(super) async fn drain(
    stream: Stream,
    pipe: pipe::Receiver,
    sink: &dyn OutputSink,
    mut dead: watch::Receiver<Option<Instant>>,
) -> Drained {
    let mut drained = Drained::default();
    let mut late = 0;
    loop {
        match read_chunk(&pipe) {
            Ok(chunk) if chunk.is_empty() => return drained,
            Ok(chunk) => {
                if is_over(&dead) {
                    late += chunk.len();
                }
                drained.bytes += chunk.len() as u64;
                sink.accept(stream, chunk).await;
                // A stream that is always ready would never yield to the other tasks.
                tokio::task::consume_budget().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !becomes_readable(&pipe, &mut dead).await {
                    return Drained { leaked: true, ..drained };
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A pipe has no other errors to read; if it had, there would be nothing more to get from it.
            Err(_) => return Drained { leaked: true, ..drained },
        }
        if late > LATE_BYTES {
            return Drained { leaked: true, ..drained };
        }
    }
}

fn is_over(dead: &watch::Receiver<Option<Instant>>) -> bool {
    dead.borrow().is_some_and(|since| since.elapsed() >= LEAK_BOUND)
}

/// Waits for data or the end of file; `false` when the bound comes first.
async fn becomes_readable(pipe: &pipe::Receiver, dead: &mut watch::Receiver<Option<Instant>>) -> bool {
    let bound = async {
        // Without a sender there is no supervision any more, and nothing to wait for.
        let since = dead.wait_for(Option::is_some).await.ok().and_then(|since| *since);
        if let Some(since) = since {
            sleep_until(since + LEAK_BOUND).await;
        }
    };
    tokio::select! {
        biased;
        readable = pipe.readable() => readable.is_ok(),
        () = bound => false,
    }
}

/// Reads once. The bytes are copied out of a buffer that belongs to the thread, so an idle job costs no memory and a
/// chunk keeps no more of it than its own length.
fn read_chunk(pipe: &pipe::Receiver) -> io::Result<Bytes> {
    thread_local! {
        static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK_BYTES].into_boxed_slice());
    }
    BUFFER.with_borrow_mut(|buffer| {
        let read = pipe.try_read(buffer)?;
        Ok(Bytes::copy_from_slice(&buffer[..read]))
    })
}
