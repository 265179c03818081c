//! What the threads and the callers of a store share, and how it is opened.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hodei_core::job::State;
use hodei_core::store::{Feeds, WakeupSignal};
use hodei_core::{Error, ErrorKind, Result, Timestamp};
use redb::{Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, TableError, TableHandle};

use crate::backup::bear;
use crate::codec;
use crate::config::{RedbStoreBuilder, Verify};
use crate::error::{corrupt, failed, guarded};
use crate::front::Front;
use crate::memory::{Delta, Index, Slots, Uncounted};
use crate::migrate::migrate;
use crate::reader::{Snapshot, View};
use crate::recent::{Gone, Recent, Specs};
use crate::rows::Rows as _;
use crate::since::Watch;
use crate::stats::Stats;
use crate::sync::lock;
use crate::table::{META_COUNTING, META_MIGRATED, META_MOVED, META_SCHEMA, SCHEMA, Tab};
use crate::txn::{Context, Room, Work, count_some, expire_all};

const OP: &str = "store.open";

/// The last commit: what is kept in memory of it, and the view of the file that belongs to it.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) index: Index,
    pub(crate) view: Arc<View>,
    /// Who reads an older view and has to know what moved since.
    pub(crate) watch: Watch,
    /// What lists over all tenants begin with.
    pub(crate) front: Front,
}

impl Committed {
    /// Reads it.
    pub(crate) fn read(db: &Database, stats: &Stats, specs: &Specs, now: Timestamp) -> Result<Self> {
        let view = View::new(db, Slots::default())?;
        let ahead = Snapshot::first(Arc::clone(&view), stats, specs);
        let index = Index::read(&mut Snapshot::first(view, stats, specs), Some(ahead), now)?;
        let view = View::new(db, index.slots.clone())?;
        Ok(Self { index, view, watch: Watch::default(), front: Front::default() })
    }

    /// Copies what is in memory, and takes the view that belongs to it.
    pub(crate) fn copied(&self) -> Self {
        let (watch, front) = (Watch::default(), Front::default());
        Self { index: self.index.clone(), view: Arc::clone(&self.view), watch, front }
    }
}

/// What is shared. What reads the file is dropped before the file.
#[derive(Debug)]
pub(crate) struct Inner {
    /// The view of the last commit again, so that whoever reads rows only need not wait for the index.
    pub(crate) view: Mutex<Arc<View>>,
    pub(crate) committed: Mutex<Committed>,
    pub(crate) db: Database,
    pub(crate) config: RedbStoreBuilder,
    pub(crate) recent: Mutex<Recent>,
    pub(crate) specs: Specs,
    pub(crate) gone: Gone,
    pub(crate) stats: Stats,
    pub(crate) bell: WakeupSignal,
    /// Held by whoever compares the indexes with the rows, which takes memory.
    pub(crate) verifying: Mutex<()>,
    /// Who is told what was committed.
    pub(crate) feeds: Feeds,
    /// Whether the index has to be read anew before the next write.
    pub(crate) stale: AtomicBool,
}

impl Inner {
    /// Opens the file. Nothing is written before the version of its schema is known to be ours.
    pub(crate) fn open(config: RedbStoreBuilder) -> Result<Self> {
        config.checked(OP)?;
        guarded(OP, || {
            let db = unlocked(|| take(&config))?;
            Self::over(db, config)
        })
    }

    /// Opens what stands in for a file.
    #[cfg(feature = "testkit")]
    pub(crate) fn open_on(config: RedbStoreBuilder, disk: impl redb::StorageBackend) -> Result<Self> {
        config.checked(OP)?;
        guarded(OP, || {
            let db = builder(&config, true).create_with_backend(disk).map_err(failed(OP))?;
            Self::over(db, config)
        })
    }

    /// What a transaction needs of it.
    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            committed: &self.committed,
            clock: &*self.config.clock,
            changes: self.config.changes,
            room: self.config.room,
            recent: &self.recent,
        }
    }

    /// Takes a database that nobody else has.
    fn over(db: Database, config: RedbStoreBuilder) -> Result<Self> {
        match check_schema(&db.begin_read().map_err(failed(OP))?)? {
            Schema::None => make(&db)?,
            Schema::Older => migrate(&db, config.migrate_jobs)?,
            Schema::Ours => {}
        }
        let (stats, specs) = (Stats::default(), Specs::default());
        let committed = Mutex::new(Committed::read(&db, &stats, &specs, config.clock.now())?);
        let recent = Mutex::new(Recent::new(config.recent_jobs));
        let feeds = Feeds::new();
        expire(&db, &config, &committed, &recent)?;
        let view = View::new(&db, lock(&committed).index.slots.clone())?;
        lock(&committed).view = Arc::clone(&view);
        let (stats, bell) = (Stats::default(), WakeupSignal::new());
        let view = Mutex::new(view);
        let (gone, stale) = (Gone::default(), AtomicBool::new(false));
        let verifying = Mutex::new(());
        Ok(Self { view, committed, db, config, recent, specs, gone, stats, bell, verifying, feeds, stale })
    }

    /// Counts all that an older schema has not counted by queue, and gives the file back.
    fn counted(self) -> Result<Database> {
        while self.alone(|work| count_some(work, self.config.migrate_jobs))? {}
        Ok(self.db)
    }

    /// Writes in a transaction while no thread does.
    pub(crate) fn alone<R>(&self, run: impl FnOnce(&mut Work<'_, '_>) -> Result<R>) -> Result<R> {
        let (txn, context) = (self.db.begin_write().map_err(failed(OP))?, self.context());
        let mut work = Work::new(&txn, &context);
        work.tick()?;
        let done = run(&mut work)?;
        work.write_out()?;
        work.flush()?;
        let delta = std::mem::take(&mut work.delta);
        drop(work);
        txn.commit().map_err(failed(OP))?;
        self.take_over(&delta)?;
        self.remember(delta);
        Ok(done)
    }

    /// Takes over what a committed transaction changed, and shows it to those who read from now on.
    pub(crate) fn take_over(&self, delta: &Delta) -> Result<()> {
        let before = lock(&self.committed).index.slots.clone();
        let view = View::new(&self.db, before.after(&delta.slots))?;
        let mut rows = Snapshot::first(Arc::clone(&view), &self.stats, &self.specs);
        let shown = Index::read_shown(&before, delta, &mut rows)?;
        let mut committed = lock(&self.committed);
        committed.index.apply(delta);
        committed.index.join(shown);
        committed.watch.note(delta);
        committed.front.follow(delta);
        committed.view = Arc::clone(&view);
        // Under the lock: whoever has seen a commit in one of them sees it in the other.
        *lock(&self.view) = view;
        Ok(())
    }

    /// Remembers what a committed transaction moved: nobody waits for that.
    pub(crate) fn remember(&self, delta: Delta) {
        // What went away may come back another.
        delta.slots.iter().for_each(|(slot, _)| lock(&self.recent).leave(*slot));
        let backlog = lock(&self.committed).index.all[State::Pending as usize];
        let mut gone = Vec::new();
        {
            let mut recent = lock(&self.recent);
            recent.apply(delta.steps, delta.spare, backlog, &mut gone);
            recent.depart(&delta.forgotten, &mut gone);
        }
        self.gone.leave(gone.into_iter().map(|spec| (1, Box::new(spec) as _)));
    }

    /// Gives up what is in memory: the next transaction reads it anew first.
    pub(crate) fn give_up(&self) {
        self.stale.store(true, Ordering::Release);
        lock(&self.recent).clear();
    }

    /// Reads anew what is kept in memory.
    pub(crate) fn rebuild(&self) -> Result<()> {
        let mut committed = Committed::read(&self.db, &self.stats, &self.specs, self.config.clock.now())?;
        let view = Arc::clone(&committed.view);
        {
            let mut older = lock(&self.committed);
            committed.index.remember(&older.index);
            *older = committed;
            *lock(&self.view) = view;
        }
        Ok(())
    }
}

/// Makes a file that nobody has open as small as it can be, and says whether it became smaller.
pub(crate) fn compact(config: &RedbStoreBuilder) -> Result<bool> {
    const OP: &str = "store.compact";
    config.checked(OP)?;
    guarded(OP, || {
        if !std::fs::exists(&config.path).map_err(io)? {
            return Err(Error::new(ErrorKind::NotFound, OP).with("path", config.path.display()));
        }
        let mut db = unlocked(|| take(config))?;
        // Nobody may be reading meanwhile.
        let schema = check_schema(&db.begin_read().map_err(failed(OP))?)?;
        if matches!(schema, Schema::None) {
            return Ok(false);
        }
        if matches!(schema, Schema::Older) || uncounted(&db)?.is_some() {
            // What it leaves behind is what there is to be saved.
            db = Inner::over(db, config.clone())?.counted()?;
        }
        db.compact().map_err(failed(OP))
    })
}

/// How long a lock is waited for: 250 ms. A process that is killed while it starts another leaves the file to that one, until
/// that one has begun or is dead too.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);

/// How long it is until the lock is tried again: 5 ms.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Tries to open the file until it is not locked, for a moment.
#[expect(clippy::disallowed_methods, reason = "nobody tells when a lock is free")]
fn unlocked(mut take: impl FnMut() -> Result<Database>) -> Result<Database> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match take() {
            Err(error) if error.kind() == ErrorKind::Locked && Instant::now() < until => {
                std::thread::sleep(LOCK_PAUSE);
            }
            taken => return taken,
        }
    }
}

fn take(config: &RedbStoreBuilder) -> Result<Database> {
    if !std::fs::exists(&config.path).map_err(io)? {
        // Whoever comes second uses what the first has made.
        bear(&config.path, OP, config.cache_bytes, make)?;
    }
    let was_closed = look_first(config)?;
    builder(config, was_closed).create(&config.path).map_err(failed(OP))
}

fn builder(config: &RedbStoreBuilder, was_closed: bool) -> Builder {
    let verifies = match config.verify {
        Verify::Never => false,
        Verify::AfterCrash => !was_closed,
        Verify::Always => true,
    };
    let mut builder = Builder::new();
    builder.set_cache_size(config.cache_bytes);
    builder.set_check_integrity_on_open(verifies);
    builder
}

fn io(source: std::io::Error) -> Error {
    failed(OP)(redb::Error::Io(source))
}

/// Looks at a file that is there without being able to write to it, and says whether it was closed.
fn look_first(config: &RedbStoreBuilder) -> Result<bool> {
    let Ok(file) = std::fs::metadata(&config.path) else { return Ok(true) };
    if !file.is_file() {
        return Err(Error::new(ErrorKind::Io, OP).with("found", "something that is no file"));
    }
    if file.len() == 0 {
        return Ok(true);
    }
    let mut builder = Builder::new();
    builder.set_cache_size(config.cache_bytes);
    match builder.open_read_only(&config.path) {
        Ok(db) => check_schema(&db.begin_read().map_err(failed(OP))?).map(|_| true),
        // It was not closed: it is looked at once it is repaired.
        Err(DatabaseError::RepairAborted) => Ok(false),
        Err(error) => Err(failed(OP)(error)),
    }
}

/// What is known of a file's schema.
enum Schema {
    /// The file is empty.
    None,
    /// It has to be migrated, or the migration has to go on.
    Older,
    /// It is ours.
    Ours,
}

/// Looks at the version of the schema, and whether every table is there.
fn check_schema(txn: &ReadTransaction) -> Result<Schema> {
    let meta = match txn.open_table(Tab::Meta.definition()) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => {
            let foreign = txn.list_tables().map_err(failed(OP))?.next().is_some();
            return if foreign { Err(corrupt(OP, "tables of another program")) } else { Ok(Schema::None) };
        }
        Err(error) => return Err(failed(OP)(error)),
    };
    let row = meta.get_owned(META_SCHEMA).map_err(failed(OP))?;
    let row = row.ok_or_else(|| corrupt(OP, "no version of the schema"))?;
    let schema = codec::number(codec::unseal(Tab::Meta, META_SCHEMA, row.value())?)?;
    if schema > SCHEMA {
        return Err(Error::new(ErrorKind::SchemaTooNew, OP).with("schema", schema).with("known", SCHEMA));
    }
    if schema < SCHEMA || meta.get_owned(META_MIGRATED).map_err(failed(OP))?.is_some() {
        return Ok(Schema::Older);
    }
    let tables: Vec<String> =
        txn.list_tables().map_err(failed(OP))?.map(|table| table.name().to_owned()).collect();
    let whole = Tab::ALL.iter().all(|tab| tables.iter().any(|name| name == tab.name()));
    if whole { Ok(Schema::Ours) } else { Err(corrupt(OP, "a table is missing")) }
}

/// Returns which jobs are still to be counted by queue.
pub(crate) fn uncounted(db: &Database) -> Result<Option<Uncounted>> {
    let txn = db.begin_read().map_err(failed(OP))?;
    let meta = txn.open_table(Tab::Meta.definition()).map_err(failed(OP))?;
    let row = meta.get_owned(META_COUNTING).map_err(failed(OP))?;
    row.map(|row| Uncounted::read(codec::unseal(Tab::Meta, META_COUNTING, row.value())?)).transpose()
}

/// Makes every table, and notes the version of the schema.
pub(crate) fn make(db: &Database) -> Result<()> {
    let txn = db.begin_write().map_err(failed(OP))?;
    for tab in Tab::ALL {
        txn.open_table(tab.definition()).map_err(failed(OP))?;
    }
    {
        let mut meta = txn.open_table(Tab::Meta.definition()).map_err(failed(OP))?;
        let mut sealed = Vec::new();
        for (key, number) in [(META_SCHEMA, SCHEMA), (META_MOVED, 0)] {
            codec::seal(Tab::Meta, key, &codec::number_row(number)?, &mut sealed);
            meta.insert(key, sealed.as_slice()).map_err(failed(OP))?;
            sealed.clear();
        }
    }
    txn.commit().map_err(failed(OP))
}

/// Ends the lives of all owners: nobody else can hold the file.
fn expire(
    db: &Database,
    config: &RedbStoreBuilder,
    committed: &Mutex<Committed>,
    recent: &Mutex<Recent>,
) -> Result<()> {
    let txn = db.begin_write().map_err(failed(OP))?;
    let context =
        Context { committed, clock: &*config.clock, changes: config.changes, room: Room::UNBOUNDED, recent };
    let mut work = Work::new(&txn, &context);
    expire_all(&mut work)?;
    if work.read(Tab::Meta, META_MOVED, codec::number)?.is_none() {
        // A file of an older schema: from now on a row that is lost is missed.
        let moved = work.look(|index| index.moved_rows);
        work.put(Tab::Meta, META_MOVED, &codec::number_row(moved)?)?;
    }
    let written = work.tally.written;
    drop(work);
    if written == 0 { txn.abort().map_err(failed(OP)) } else { txn.commit().map_err(failed(OP)) }
}
