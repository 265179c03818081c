//! Reading: snapshots, and the thread for reads that take long.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use hodei_core::{Error, ErrorKind, Result};
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};
use tokio::sync::oneshot;

use crate::error::{failed, guarded};
use crate::inner::Inner;
use crate::rows::{self, Rows, Span};
use crate::stats::Stats;
use crate::table::Tab;

/// A read of more rows than this leaves the caller's thread.
pub(crate) const INLINE_ROWS: usize = 100;

/// How many reads may wait for the thread; beyond it they are refused.
const WAITING_READS: usize = 1_024;

type Open = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The store as of one commit.
pub(crate) struct Snapshot<'s> {
    txn: ReadTransaction,
    tables: [Option<Open>; Tab::ALL.len()],
    stats: &'s Stats,
}

impl<'s> Snapshot<'s> {
    /// Takes a snapshot.
    pub(crate) fn new(db: &impl ReadableDatabase, stats: &'s Stats) -> Result<Self> {
        let txn = db.begin_read().map_err(failed("store.read"))?;
        Ok(Self { txn, tables: [const { None }; Tab::ALL.len()], stats })
    }

    /// Opens a table; every table is there since the file was made.
    pub(crate) fn table(&mut self, tab: Tab) -> Result<&Open> {
        let place = &mut self.tables[tab.number()];
        let table = match place.take() {
            Some(table) => table,
            None => self.txn.open_table(tab.definition()).map_err(failed("store.table"))?,
        };
        Ok(place.insert(table))
    }

    /// Counts rows that were read past this type.
    pub(crate) fn count(&self, rows: u64) {
        self.stats.read(rows);
    }
}

impl Rows for Snapshot<'_> {
    fn read<R>(&mut self, tab: Tab, key: &[u8], take: impl FnOnce(&[u8]) -> Result<R>) -> Result<Option<R>> {
        self.stats.read(1);
        let row = self.table(tab)?.get_owned(key).map_err(failed("store.read"))?;
        row.map(|row| take(row.value())).transpose()
    }

    fn scan(
        &mut self,
        tab: Tab,
        span: Span<'_>,
        take: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let read = rows::scan(self.table(tab)?, span, take)?;
        self.stats.read(read);
        Ok(())
    }

    fn at_or_before<R>(
        &mut self,
        tab: Tab,
        key: &[u8],
        take: impl FnOnce(&[u8], &[u8]) -> Result<R>,
    ) -> Result<Option<R>> {
        self.stats.read(1);
        rows::at_or_before(self.table(tab)?, key, take)
    }
}

type Task = Box<dyn FnOnce() + Send>;

/// The thread for reads that take long.
#[derive(Debug)]
pub(crate) struct Reader(mpsc::SyncSender<Task>);

impl Reader {
    /// Starts the thread; it ends with the reader.
    pub(crate) fn start() -> Result<(Self, JoinHandle<()>)> {
        let (sender, tasks) = mpsc::sync_channel::<Task>(WAITING_READS);
        let thread =
            crate::sync::thread("hodei-redb-read", move || tasks.into_iter().for_each(|task| task()))?;
        Ok((Self(sender), thread))
    }

    /// Reads in a snapshot: here when it is little, else on the thread.
    pub(crate) async fn read<R, F>(
        &self,
        inner: &Arc<Inner>,
        op: &'static str,
        rows: usize,
        read: F,
    ) -> Result<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut Snapshot<'_>) -> Result<R> + Send + 'static,
    {
        if rows <= INLINE_ROWS {
            return snapshot(&inner.db, &inner.stats, op, read);
        }
        let (caller, answer) = oneshot::channel();
        let inner = Arc::clone(inner);
        let task: Task = Box::new(move || drop(caller.send(snapshot(&inner.db, &inner.stats, op, read))));
        self.0.try_send(task).map_err(|_| Error::new(ErrorKind::Full, op))?;
        answer.await.map_err(|_| Error::new(ErrorKind::Unavailable, op))?
    }
}

fn snapshot<R>(
    db: &Database,
    stats: &Stats,
    op: &'static str,
    read: impl FnOnce(&mut Snapshot<'_>) -> Result<R>,
) -> Result<R> {
    guarded(op, || read(&mut Snapshot::new(db, stats)?))
}
