//! Who writes which stream now, and how it is read.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hodei_core::job::LogEnd;
use hodei_core::log::{LogKey, LogRead, LogReader};
use hodei_core::map::JobSet;
use hodei_core::{Error, ErrorKind, JobId, Result, Tenant};
use tokio::sync::watch;

use super::file;

/// How many bytes of a stream are kept in a file: the first ones, so that an offset stays one and the file is only ever
/// appended to. More are counted and dropped; readers are told how many, and the job's manifest too.
const FILE_MAX: u64 = 64 * 1024 * 1024;
/// How many bytes of a stream are kept where there is no directory for files: the last ones, in a ring.
const MEMORY_MAX: u64 = 256 * 1024;
/// How many ended streams are kept where there is no directory for files.
const MEMORY_STREAMS: usize = 1_024;

/// The logs of an agent.
#[derive(Debug)]
pub(crate) struct LogStore {
    directory: Option<PathBuf>,
    /// Std mutex: held for a look-up.
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// The streams that are written now, and without a directory the last ones that have ended.
    streams: HashMap<LogKey, Arc<Live>>,
    ended: VecDeque<LogKey>,
}

/// A stream that is written, or is kept in memory.
#[derive(Debug)]
struct Live {
    /// Std mutex: held for a copy or a write to the page cache.
    content: Mutex<Content>,
    /// How many bytes there are, and whether it has ended.
    grown: watch::Sender<(u64, bool)>,
}

#[derive(Debug)]
struct Content {
    file: Option<File>,
    /// The last bytes, where there is no file.
    ring: VecDeque<u8>,
    /// Where the ring begins in the stream.
    ring_start: u64,
    kept: u64,
    dropped: u64,
    crc: crc32fast::Hasher,
}

impl LogStore {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, open: Mutex::default() }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a stream. Its file is made with its first byte.
    pub(crate) fn writer(self: &Arc<Self>, key: LogKey) -> LogWriter {
        let crc = crc32fast::Hasher::new();
        let ring = VecDeque::new();
        let content = Content { file: None, ring, ring_start: 0, kept: 0, dropped: 0, crc };
        let live = Arc::new(Live { content: Mutex::new(content), grown: watch::Sender::new((0, false)) });
        self.open().streams.insert(key.clone(), Arc::clone(&live));
        LogWriter { store: Arc::clone(self), key, live, ended: false }
    }

    fn live(&self, key: &LogKey) -> Option<Arc<Live>> {
        self.open().streams.get(key).cloned()
    }

    fn close(&self, key: &LogKey, empty: bool) {
        let mut open = self.open();
        if self.directory.is_some() || empty {
            open.streams.remove(key);
            return;
        }
        open.ended.push_back(key.clone());
        if open.ended.len() > MEMORY_STREAMS
            && let Some(oldest) = open.ended.pop_front()
        {
            open.streams.remove(&oldest);
        }
    }

    fn read_now(&self, key: &LogKey, offset: u64, max: usize) -> Result<LogRead> {
        let live = self.live(key);
        let ended = live.as_ref().is_none_or(|live| live.grown.borrow().1);
        let (start, bytes, dropped) = match (&self.directory, &live) {
            (None, Some(live)) => live.copy(offset, max),
            (Some(_), Some(live)) if live.grown.borrow().0 <= offset => {
                (offset, Bytes::new(), live.dropped())
            }
            (Some(directory), _) => {
                let read = file::read(directory, key, offset, max);
                let (bytes, dropped) = read.map_err(|source| failed(key, source))?;
                (offset, bytes, dropped)
            }
            (None, None) => return Err(failed(key, std::io::ErrorKind::NotFound.into())),
        };
        let next = start + bytes.len() as u64;
        // A full answer may have more behind it.
        let more = bytes.len() == max;
        Ok(LogRead { next, ended: ended && !more, dropped, bytes })
    }
}

fn failed(key: &LogKey, source: std::io::Error) -> Error {
    let missing = source.kind() == std::io::ErrorKind::NotFound;
    let kind = if missing { ErrorKind::NotFound } else { ErrorKind::Io };
    Error::new(kind, "log.read").with("job", key.job).with("epoch", key.epoch).source_error(source)
}

#[async_trait]
impl LogReader for LogStore {
    async fn read(&self, key: &LogKey, offset: u64, max: usize) -> Result<LogRead> {
        self.read_now(key, offset, max)
    }

    async fn follow(&self, key: &LogKey, offset: u64, max: usize) -> Result<LogRead> {
        if let Some(live) = self.live(key) {
            let mut grown = live.grown.subscribe();
            // Our own `live` holds the sender: the wait ends by growth or by the end.
            let _ = grown.wait_for(|(length, ended)| *length > offset || *ended).await;
            if grown.borrow().0 == 0 {
                return Ok(LogRead { ended: true, next: offset, ..LogRead::default() });
            }
        }
        self.read_now(key, offset, max)
    }
}

#[async_trait]
impl hodei_core::log::LogStore for LogStore {
    async fn forget(&self, jobs: Vec<(Tenant, JobId)>) -> Result<()> {
        {
            let gone: JobSet = jobs.iter().map(|(_, job)| *job).collect();
            let mut open = self.open();
            open.streams.retain(|key, _| !gone.contains(&key.job));
            open.ended.retain(|key| !gone.contains(&key.job));
        }
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let removed = tokio::task::spawn_blocking(move || {
            let mut first = None;
            for (tenant, job) in jobs {
                if let Err(error) = file::forget(&directory, &tenant, job) {
                    first.get_or_insert((job, error));
                }
            }
            first
        });
        let failed = |job| Error::new(ErrorKind::Io, "log.forget").with("job", job);
        match removed.await {
            Ok(None) => Ok(()),
            Ok(Some((job, source))) => Err(failed(job).source_error(source)),
            Err(gone) => Err(Error::new(ErrorKind::Unavailable, "log.forget").with("why", gone)),
        }
    }
}

impl Live {
    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dropped(&self) -> u64 {
        self.content().dropped
    }

    /// Copies what the ring has from an offset on, or from its own beginning; with the offset of the first byte.
    fn copy(&self, offset: u64, max: usize) -> (u64, Bytes, u64) {
        let content = self.content();
        let start = offset.max(content.ring_start);
        let skip = usize::try_from(start - content.ring_start).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = content.ring.iter().skip(skip).take(max).copied().collect();
        (start, bytes.into(), content.dropped)
    }
}

impl Content {
    /// Adds bytes to the ring, and forgets the first ones beyond its limit.
    fn turn(&mut self, bytes: &[u8]) {
        self.ring.extend(bytes);
        let limit = usize::try_from(MEMORY_MAX).unwrap_or(usize::MAX);
        let surplus = self.ring.len().saturating_sub(limit);
        self.ring.drain(..surplus);
        self.ring_start += surplus as u64;
        self.dropped += surplus as u64;
        self.kept = self.ring.len() as u64;
    }

    /// Where the next byte will be in the stream as it is kept.
    fn end(&self) -> u64 {
        self.ring_start + self.kept
    }
}

/// Writes a stream; dropping it ends the stream.
#[derive(Debug)]
pub(crate) struct LogWriter {
    store: Arc<LogStore>,
    key: LogKey,
    live: Arc<Live>,
    ended: bool,
}

impl LogWriter {
    /// Adds bytes; what is above the limit, and what the disk does not take, is dropped and counted.
    pub(crate) fn write(&mut self, bytes: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        let mut content = self.live.content();
        match &self.store.directory {
            None => content.turn(bytes),
            Some(directory) => self.file(directory, &mut content, bytes),
        }
        let length = content.end();
        drop(content);
        self.live.grown.send_replace((length, false));
    }

    fn file(&self, directory: &Path, content: &mut Content, bytes: &[u8]) {
        let room = usize::try_from(FILE_MAX - content.kept).unwrap_or(usize::MAX);
        let (kept, dropped) = bytes.split_at(room.min(bytes.len()));
        content.dropped += dropped.len() as u64;
        match self.append(directory, content, kept) {
            Ok(()) => {
                content.kept += kept.len() as u64;
                content.crc.update(kept);
            }
            Err(_) => content.dropped += kept.len() as u64,
        }
    }

    fn append(&self, directory: &Path, content: &mut Content, bytes: &[u8]) -> std::io::Result<()> {
        if content.file.is_none() {
            content.file = Some(file::create(directory, &self.key)?);
        }
        match &mut content.file {
            Some(file) => file.write_all(bytes),
            None => Ok(()),
        }
    }

    /// Ends the stream and says what it amounted to; nothing when nothing was written.
    pub(crate) fn end(mut self) -> Option<LogEnd> {
        self.finish()
    }

    fn finish(&mut self) -> Option<LogEnd> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        let content = self.live.content();
        let mut crc = content.crc.clone();
        let (front, back) = content.ring.as_slices();
        crc.update(front);
        crc.update(back);
        let crc32 = crc.finalize();
        let end = LogEnd { stream: self.key.stream, kept: content.kept, dropped: content.dropped, crc32 };
        drop(content);
        let empty = end.kept + end.dropped == 0;
        if let (Some(directory), false) = (&self.store.directory, empty) {
            // The bytes are there; without its end record only the number of dropped ones is not.
            let _ = file::end(directory, &self.key, &end);
        }
        self.live.grown.send_modify(|(_, ended)| *ended = true);
        self.store.close(&self.key, empty);
        (!empty).then_some(end)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use hodei_core::job::{Epoch, Stream};

    use super::*;

    fn key() -> LogKey {
        let tenant = Tenant::default();
        let job = JobId::from_parts(1, tenant.slot(), 1);
        LogKey { tenant, job, epoch: Epoch::from_number(1), stream: Stream::Stdout }
    }

    #[tokio::test]
    async fn a_log_is_read_while_it_grows_and_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(LogStore::new(Some(directory.path().to_owned())));
        let mut writer = store.writer(key());
        let following = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.follow(&key(), 0, 100).await.unwrap() }
        });
        writer.write(&Bytes::from_static(b"one\n"));
        assert_eq!(following.await.unwrap().bytes, "one\n");
        writer.write(&Bytes::from_static(b"two\n"));
        let read = store.follow(&key(), 4, 100).await.unwrap();
        assert_eq!((read.bytes, read.next, read.ended), (Bytes::from_static(b"two\n"), 8, false));
        let end = writer.end().unwrap();
        assert_eq!((end.kept, end.dropped, end.crc32), (8, 0, crc32fast::hash(b"one\ntwo\n")));
        let restarted = LogStore::new(Some(directory.path().to_owned()));
        let read = restarted.follow(&key(), 0, 100).await.unwrap();
        assert_eq!((read.bytes, read.ended), (Bytes::from_static(b"one\ntwo\n"), true));
    }

    #[tokio::test]
    async fn a_ring_keeps_the_end_and_its_offsets() {
        let store = Arc::new(LogStore::new(None));
        let mut writer = store.writer(key());
        let most = usize::try_from(MEMORY_MAX).unwrap();
        writer.write(&Bytes::from(vec![7; most - 1]));
        writer.write(&Bytes::from_static(b"abc"));
        let read = store.read(&key(), 0, 10).await.unwrap();
        assert_eq!(
            (read.bytes.len(), read.next, read.dropped),
            (10, 12, 2),
            "it goes on where the ring begins"
        );
        let end = writer.end().unwrap();
        let kept = [vec![7; most - 3], b"abc".to_vec()].concat();
        assert_eq!((end.kept, end.dropped, end.crc32), (MEMORY_MAX, 2, crc32fast::hash(&kept)));
        let read = store.read(&key(), MEMORY_MAX - 1, 10).await.unwrap();
        assert_eq!((read.bytes, read.dropped, read.ended), (Bytes::from_static(b"abc"), 2, true));
    }

    #[tokio::test]
    async fn the_logs_of_a_job_are_forgotten_and_those_of_others_stay() {
        use hodei_core::log::LogStore as _;
        let directory = tempfile::tempdir().unwrap();
        for kept_in in [None, Some(directory.path().to_owned())] {
            let store = Arc::new(LogStore::new(kept_in));
            let other = LogKey { job: JobId::from_parts(2, Tenant::default().slot(), 1), ..key() };
            for key in [key(), LogKey { stream: Stream::Stderr, ..key() }, other.clone()] {
                let mut writer = store.writer(key);
                writer.write(&Bytes::from_static(b"said\n"));
                writer.end().unwrap();
            }
            let unknown = JobId::from_parts(3, Tenant::default().slot(), 1);
            let jobs = [unknown, key().job].map(|job| (Tenant::default(), job));
            store.forget(jobs.to_vec()).await.unwrap();
            for stream in [Stream::Stdout, Stream::Stderr] {
                let read = store.read(&LogKey { stream, ..key() }, 0, 10).await;
                assert_eq!(read.unwrap_err().kind(), ErrorKind::NotFound);
            }
            assert_eq!(store.read(&other, 0, 10).await.unwrap().bytes, "said\n");
            store.forget(jobs.to_vec()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_silent_stream_ends_and_leaves_nothing() {
        let store = Arc::new(LogStore::new(None));
        let writer = store.writer(key());
        let following = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.follow(&key(), 0, 100).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(writer.end(), None);
        assert!(following.await.unwrap().unwrap().ended);
        assert_eq!(store.read(&key(), 0, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
