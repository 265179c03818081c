//! Reading: snapshots, and the thread for reads that take long.

use std::fmt;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use hodei_core::{Error, ErrorKind, JobId, Result};
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase};
use tokio::sync::oneshot;

use crate::codec::{self, Head, Names};
use crate::error::{corrupt, failed, guarded};
use crate::inner::{Committed, Inner};
use crate::memory::Slots;
use crate::recent::Specs;
use crate::rows::{self, Rows, Span};
use crate::since::Since;
use crate::stats::Stats;
use crate::sync::lock;
use crate::table::Tab;

/// A read of more rows than this leaves the caller's thread.
pub(crate) const INLINE_ROWS: usize = 100;

/// How many threads read.
const THREADS: usize = 2;

/// How many reads may wait for the threads; beyond it they are refused.
const WAITING_READS: usize = 1_024;

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The file as of one commit; shared by all who read it, with the tables that one of them has opened.
pub(crate) struct View {
    txn: ReadTransaction,
    tables: [OnceLock<Table>; Tab::ALL.len()],
    /// Which slots are not open as of that commit.
    pub(crate) slots: Slots,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl View {
    /// Takes the view of the last commit.
    pub(crate) fn new(db: &impl ReadableDatabase, slots: Slots) -> Result<Arc<Self>> {
        let txn = db.begin_read().map_err(failed("store.read"))?;
        Ok(Arc::new(Self { txn, tables: [const { OnceLock::new() }; Tab::ALL.len()], slots }))
    }

    /// Opens a table; every table is there since the file was made.
    pub(crate) fn table(&self, tab: Tab) -> Result<&Table> {
        let place = &self.tables[tab.number()];
        match place.get() {
            Some(table) => Ok(table),
            None => {
                let table = self.txn.open_table(tab.definition()).map_err(failed("store.table"))?;
                Ok(place.get_or_init(|| table))
            }
        }
    }
}

/// A reader of a view.
pub(crate) struct Snapshot<'s> {
    pub(crate) view: Arc<View>,
    stats: &'s Stats,
    specs: &'s Specs,
    /// Nothing while the index is being read.
    committed: Option<&'s Mutex<Committed>>,
    names: Names,
    /// What has moved since the view was taken, where that is noted.
    since: Option<Arc<Since>>,
    /// Whether the view was exchanged for a later one, so that what was read before is not of the same commit.
    moved_on: bool,
}

/// How often a read that came upon a later commit begins anew before it is given up. From the second time on it does so only
/// where a slot went away or the index was read anew meanwhile.
const ANEW_MAX: usize = 32;

impl<'s> Snapshot<'s> {
    /// Reads a view from which the index will be made.
    pub(crate) fn first(view: Arc<View>, stats: &'s Stats, specs: &'s Specs) -> Self {
        Self { view, stats, specs, committed: None, names: Names::default(), since: None, moved_on: false }
    }

    /// Reads the view of the last commit.
    fn new(inner: &'s Inner) -> Self {
        Self::of(inner, Arc::clone(&lock(&inner.view)))
    }

    /// Reads a view that is or was that of the last commit.
    pub(crate) fn of(inner: &'s Inner, view: Arc<View>) -> Self {
        let Inner { stats, specs, committed, .. } = inner;
        let (committed, names) = (Some(committed), Names::default());
        Self { view, stats, specs, committed, names, since: None, moved_on: false }
    }

    /// Reads a commit of which somebody keeps what was in memory.
    pub(crate) fn as_of(inner: &'s Inner, committed: &'s Mutex<Committed>) -> Self {
        let view = Arc::clone(&lock(committed).view);
        Self { committed: Some(committed), ..Self::of(inner, view) }
    }

    /// Reads something that is to be of one commit. Where the read comes upon a later one, it begins anew with that, and what
    /// moves from then on of the jobs that it asks for is noted: those do not make it begin anew again.
    pub(crate) fn of_one_commit<R>(
        &mut self,
        asked: impl Fn() -> Option<Vec<JobId>>,
        mut read: impl FnMut(&mut Self) -> Result<R>,
    ) -> Result<R> {
        for _ in 0..ANEW_MAX {
            let found = read(self)?;
            if !std::mem::take(&mut self.moved_on) {
                return Ok(found);
            }
            if let Some(committed) = self.committed {
                let asked = asked();
                self.go_by(lock(committed).pin(asked));
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "store.read").with("tries", ANEW_MAX))
    }

    /// Reads a view since which it is noted what moves.
    pub(crate) fn go_by(&mut self, (view, since): (Arc<View>, Arc<Since>)) {
        (self.view, self.since) = (view, Some(since));
    }

    /// Goes over to the view of the last commit.
    pub(crate) fn renew(&mut self, committed: &mut Committed) {
        match self.since {
            Some(_) => self.go_by(committed.pin(None)),
            None => self.view = Arc::clone(&committed.view),
        }
    }

    /// Says whether a job without a row of its moves really was as it was born as of the view.
    fn confirms(&self, committed: &Committed, head: &Head) -> bool {
        committed.index.confirms(head)
            || self.since.as_ref().is_some_and(|since| since.has_moved(head.job.id))
    }

    /// Says which jobs really are as they were born, as far as the index tells at once; there is nothing to confirm of
    /// those that have moved.
    pub(crate) fn confirmed<'h>(&self, heads: impl Iterator<Item = Option<&'h Head>>) -> Vec<bool> {
        match self.committed {
            Some(committed) => {
                let committed = lock(committed);
                heads.map(|head| head.is_none_or(|head| self.confirms(&committed, head))).collect()
            }
            None => heads.map(|_| true).collect(),
        }
    }

    /// Says whether the view was exchanged for a later one.
    pub(crate) fn moved_on(&self) -> bool {
        self.moved_on
    }

    /// Returns the specs that were read lately.
    pub(crate) fn specs(&self) -> &'s Specs {
        self.specs
    }

    /// Counts rows that were read past this type.
    pub(crate) fn count(&self, rows: u64) {
        self.stats.read(rows);
    }
}

impl Rows for Snapshot<'_> {
    fn read<R>(&mut self, tab: Tab, key: &[u8], take: impl FnOnce(&[u8]) -> Result<R>) -> Result<Option<R>> {
        self.stats.read(1);
        let row = self.view.table(tab)?.get_owned(key).map_err(failed("store.read"))?;
        row.map(|row| take(codec::unseal(tab, key, row.value())?)).transpose()
    }

    fn scan(
        &mut self,
        tab: Tab,
        span: Span<'_>,
        take: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let read = rows::scan(self.view.table(tab)?, tab, span, take)?;
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
        rows::at_or_before(self.view.table(tab)?, tab, key, take)
    }

    fn seek<'k>(
        &mut self,
        tab: Tab,
        keys: impl Iterator<Item = &'k [u8]>,
        take: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let read = rows::seek(self.view.table(tab)?, tab, keys, take)?;
        self.stats.read(read);
        Ok(())
    }

    fn confirm(&mut self, head: Head) -> Result<Head> {
        let Some(committed) = self.committed else { return Ok(head) };
        let committed = lock(committed);
        if self.confirms(&committed, &head) {
            return Ok(head);
        }
        // It has moved since the view was taken, or it moved long ago and the row is lost: the last commit tells.
        let id = head.job.id;
        (self.view, self.since, self.moved_on) = (Arc::clone(&committed.view), None, true);
        if self.view.slots.hides(|| id.slot()) {
            // It went with its slot; whoever reads anew is told so.
            return Ok(head);
        }
        let row = self.view.table(Tab::Heads)?.get_owned(&id.as_bytes()[..]).map_err(failed("store.read"))?;
        let row = row.ok_or_else(|| corrupt("row.read", "a job whose moves are lost").with("job", id))?;
        codec::head(id, codec::unseal(Tab::Heads, id.as_bytes(), row.value())?, &mut self.names)
    }

    fn names(&mut self) -> &mut Names {
        &mut self.names
    }
}

type Task = Box<dyn FnOnce() + Send>;

/// Who waits for a read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    /// A dispatcher, without whose next step nothing runs.
    Dispatch,
    /// Anybody else.
    Anyone,
}

/// The threads for reads that take long: two, so that a large read can be done in halves, and one read does not hold up
/// all others; and one on which dispatchers wait only for each other.
#[derive(Debug)]
pub(crate) struct Reader {
    anyone: mpsc::SyncSender<Task>,
    dispatch: mpsc::SyncSender<Task>,
}

impl Reader {
    /// Starts the threads; they end with the reader.
    pub(crate) fn start() -> Result<(Self, Vec<JoinHandle<()>>)> {
        let (anyone, mut threads) = pool("hodei-redb-read", THREADS)?;
        let (dispatch, own) = pool("hodei-redb-lane", 1)?;
        threads.extend(own);
        Ok((Self { anyone, dispatch }, threads))
    }

    /// Reads in a snapshot: here when it is little, else on one of the threads.
    pub(crate) async fn read<R, F>(
        &self,
        inner: &Arc<Inner>,
        op: &'static str,
        (asker, rows): (Asker, usize),
        read: F,
    ) -> Result<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut Snapshot<'_>) -> Result<R> + Send + 'static,
    {
        if rows <= INLINE_ROWS {
            return snapshot(inner, op, read);
        }
        let (caller, answer) = oneshot::channel();
        let inner = Arc::clone(inner);
        let task: Task = Box::new(move || drop(caller.send(snapshot(&inner, op, read))));
        let threads = match asker {
            Asker::Dispatch => &self.dispatch,
            Asker::Anyone => &self.anyone,
        };
        threads.try_send(task).map_err(|_| Error::new(ErrorKind::Full, op))?;
        answer.await.map_err(|_| Error::new(ErrorKind::Unavailable, op))?
    }
}

/// Starts threads that share their tasks; they end when nobody can send any more.
fn pool(name: &str, threads: usize) -> Result<(mpsc::SyncSender<Task>, Vec<JoinHandle<()>>)> {
    let (sender, tasks) = mpsc::sync_channel::<Task>(WAITING_READS);
    let tasks = Arc::new(Mutex::new(tasks));
    let thread = |_| {
        let tasks = Arc::clone(&tasks);
        crate::sync::thread(name, move || {
            // Whoever waits for a task holds the lock: the other one does a task, or waits for the lock instead.
            let next = || lock(&tasks).recv();
            while let Ok(task) = next() {
                task();
            }
        })
    };
    Ok((sender, (0..threads).map(thread).collect::<Result<_>>()?))
}

fn snapshot<R>(
    inner: &Inner,
    op: &'static str,
    read: impl FnOnce(&mut Snapshot<'_>) -> Result<R>,
) -> Result<R> {
    guarded(op, || read(&mut Snapshot::new(inner)))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use hodei_core::job::{JobSpec, NewJob};
    use hodei_core::store::{JobStore, Served, SubmitOptions};
    use hodei_core::{JobId, Tenant};

    use super::*;
    use crate::RedbStore;

    #[tokio::test]
    async fn reads_of_any_length_hold_up_no_dispatcher() {
        let folder = tempfile::tempdir().unwrap();
        let store = RedbStore::open(folder.path().join("jobs.redb")).unwrap();
        // More lanes than are looked at inline.
        let spec = |n| JobSpec::command(["true"]).queue(format!("q{n}")).build().unwrap();
        let jobs = (0..=INLINE_ROWS).map(|n| NewJob::of(Tenant::default(), spec(n))).collect::<Vec<_>>();
        let id: JobId = jobs[0].id;
        store.submit(jobs, SubmitOptions::each()).await.unwrap();
        let (open, gates): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel::<()>()).unzip();
        let long = gates.into_iter().map(|gate| {
            let store = store.clone();
            tokio::spawn(async move {
                let wait = move |_: &mut Snapshot<'_>| {
                    // Whoever holds the other end lets go of it.
                    let _ = gate.recv();
                    Ok(())
                };
                store.read("store.long", INLINE_ROWS + 1, wait).await
            })
        });
        let long: Vec<_> = long.collect();
        tokio::task::yield_now().await;
        let waiting = {
            let store = store.clone();
            tokio::spawn(async move {
                let scope = hodei_core::store::Scope::All;
                store.get_many(&scope, vec![id; INLINE_ROWS], hodei_core::store::Consistency::Latest).await
            })
        };
        let heads = store.lanes(&Served::default()).await.unwrap().heads;
        assert_eq!(heads.len(), INLINE_ROWS + 1);
        let nothing = store.lanes(&Served { queues: Some(Vec::new()), ..Served::default() }).await.unwrap();
        assert!(nothing.heads.is_empty() && !waiting.is_finished(), "and others wait for their turn");
        drop(open);
        for read in long {
            read.await.unwrap().unwrap();
        }
        assert_eq!(waiting.await.unwrap().unwrap().len(), INLINE_ROWS);
    }
}
