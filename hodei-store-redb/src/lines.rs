//! A store as lines of text, and a store from them.

use std::io::{BufRead, BufWriter, Write};
use std::sync::{Arc, Mutex};

use hodei_core::store::{ChangeLog, Counts, LineCounts, LineReader, LineRow, LineWriter, Scope, SlotRow};
use hodei_core::{Error, ErrorKind, JobId, Result};
use redb::Database;
use tokio::sync::oneshot;

use crate::backup::bear;
use crate::codec;
use crate::config::RedbStoreBuilder;
use crate::error::{corrupt, failed, guarded};
use crate::inner::{Committed, Inner, make};
use crate::key;
use crate::query;
use crate::reader::{Snapshot, View};
use crate::recent::{Recent, Specs};
use crate::rows::{Rows, Span};
use crate::stats::Stats;
use crate::store::RedbStore;
use crate::sync::lock;
use crate::table::Tab;
use crate::txn::{Context, Room, Work, bring_checkpoint, bring_row, check_edges, checkpoints};

/// How a row is read.
type Read<'a> = &'a dyn Fn(&[u8]) -> Result<SlotRow>;

/// How many jobs are read in one go.
const TOGETHER: usize = 500;
/// How many rows are brought in one transaction at most, and of how many bytes.
const ROWS: usize = 1_000;
const BYTES: u64 = 16 << 20;

impl RedbStore {
    /// Writes the store as of now as lines of JSON, while it is in use; see
    /// [`LineWriter`] for the format, and [`RedbStoreBuilder::import`] for the way back.
    ///
    /// Equal stores give equal texts. Recorded changes, owners and terms are not written.
    ///
    /// # Errors
    ///
    /// `Conflict` for a shard: the lines do not say which slots are whose, and a store that was made of them would take
    /// work that is elsewhere. [`RedbStore::backup`] copies a shard with all that it is.
    /// `Corrupt` for a damaged row; `Io` and `Full` when the text cannot be written. What was written then has no line at
    /// its end, and no reader takes it for whole.
    ///
    /// # Cancel safety
    ///
    /// An export whose future is dropped goes on to its end.
    ///
    /// # Performance
    ///
    /// It runs on a thread of its own, holds nobody up, and keeps a few hundred jobs in memory at a time. What is replaced
    /// meanwhile takes room in the file until it is done.
    pub async fn export(&self, out: impl Write + Send + 'static) -> Result<LineCounts> {
        const OP: &str = "store.export";
        let inner = Arc::clone(self.inner());
        let (caller, answer) = oneshot::channel();
        crate::sync::thread("hodei-redb-export", move || {
            let view = Arc::clone(&lock(&inner.view));
            let done = guarded(OP, || export(view, &inner, out));
            drop(inner);
            // A caller that went away does not want to know.
            drop(caller.send(done));
        })?;
        answer.await.map_err(|_| Error::new(ErrorKind::Unavailable, OP))?
    }
}

fn export(view: Arc<View>, inner: &Inner, out: impl Write) -> Result<LineCounts> {
    let slots = view.slots.clone();
    let mut rows = Snapshot::first(view, &inner.stats, &inner.specs);
    let mut shard = !slots.is_empty();
    rows.scan(Tab::Notes, Span::ALL, |_, _| {
        shard = true;
        Ok(false)
    })?;
    if shard {
        return Err(Error::new(ErrorKind::Conflict, "store.export").with("is", "a shard"));
    }
    let mut lines = LineWriter::new(BufWriter::with_capacity(1 << 16, out))?;
    let rates = rows.rates()?;
    let limit = |row: &[u8]| codec::limit(row).map(|limit| query::limit_row(limit, &rates));
    let policies: [(Tab, Read<'_>); 3] = [
        (Tab::Queues, &|row| codec::queue(row).map(SlotRow::Queue)),
        (Tab::Limits, &limit),
        (Tab::Schedules, &|row| codec::schedule(row).map(SlotRow::Schedule)),
    ];
    for (tab, read) in policies {
        rows.scan(tab, Span::ALL, |_, row| {
            let row = read(row)?;
            if !row.slot().is_some_and(|slot| slots.hides(|| slot)) {
                lines.row(&row)?;
            }
            Ok(true)
        })?;
    }
    let mut from = Vec::new();
    loop {
        let mut ids = Vec::with_capacity(TOGETHER);
        rows.scan(Tab::Born, (Some(from.as_slice()), None).into(), |key, _| {
            ids.push(key::last_id(key).ok_or_else(|| corrupt("store.export", "a short key"))?);
            Ok(ids.len() < TOGETHER)
        })?;
        let Some(last) = ids.last() else { break };
        from = [&last.as_bytes()[..], &[0]].concat();
        ids.retain(|id: &JobId| !slots.hides(|| id.slot()));
        let asked: Vec<_> = ids.into_iter().zip(0..).collect();
        for (_, job) in query::jobs(&mut rows, &Scope::All, &asked)? {
            lines.row(&query::row_of(&mut rows, job)?)?;
        }
    }
    // A job whose rows are lost would not be missed otherwise.
    let mut counted = Counts::default();
    rows.scan(Tab::Counts, Span::ALL, |key, row| {
        counted = counted.plus(codec::counted(key, row)?.2);
        Ok(true)
    })?;
    if lines.counts().jobs != counted {
        return Err(corrupt("store.export", "other jobs than were counted"));
    }
    checkpoints(&mut rows, |checkpoint| lines.checkpoint(checkpoint))?;
    lines.finish()
}

/// Makes a file of lines. It gets its name when it is whole and synced.
pub(crate) fn import(config: &RedbStoreBuilder, input: impl BufRead) -> Result<LineCounts> {
    const OP: &str = "store.import";
    config.checked(OP)?;
    let taken = || Error::new(ErrorKind::Conflict, OP).with("exists", config.path.display());
    if std::fs::exists(&config.path).map_err(|source| failed(OP)(redb::Error::Io(source)))? {
        return Err(taken());
    }
    let mut lines = LineReader::new(input)?;
    let named = bear(&config.path, OP, config.cache_bytes, |db| {
        make(db)?;
        guarded(OP, || bring(db, config, &mut lines))
    })?;
    if named { Ok(lines.counts()) } else { Err(taken()) }
}

fn bring(db: &Database, config: &RedbStoreBuilder, lines: &mut LineReader<impl BufRead>) -> Result<()> {
    const OP: &str = "store.import";
    let (stats, specs) = (Stats::default(), Specs::default());
    let committed = Mutex::new(Committed::read(db, &stats, &specs, config.clock.now())?);
    let recent = Mutex::new(Recent::new(0));
    let context = Context {
        committed: &committed,
        clock: &*config.clock,
        changes: ChangeLog::Off,
        room: Room::UNBOUNDED,
        recent: &recent,
    };
    let mut more = true;
    while more {
        let txn = db.begin_write().map_err(failed(OP))?;
        let mut work = Work::new(&txn, &context);
        more = some(&mut work, lines)?;
        if !more {
            check_edges(&mut work)?;
        }
        work.flush()?;
        let delta = std::mem::take(&mut work.delta);
        drop(work);
        txn.commit().map_err(failed(OP))?;
        let mut committed = lock(&committed);
        committed.index.apply(&delta);
        // Whoever keeps an old view keeps what was replaced since.
        committed.view = View::new(db, committed.index.slots.clone())?;
    }
    Ok(())
}

/// Brings the rows of one transaction, and says whether others follow.
fn some(work: &mut Work<'_, '_>, lines: &mut LineReader<impl BufRead>) -> Result<bool> {
    for _ in 0..ROWS {
        let Some(row) = lines.next_row()? else { return Ok(false) };
        match row {
            LineRow::Row(row) => {
                if let Some(fault) = bring_row(work, &row)? {
                    return Err(lines.refuse(fault));
                }
            }
            LineRow::Checkpoint(checkpoint) => bring_checkpoint(work, &checkpoint)?,
        }
        if work.tally.bytes >= BYTES {
            break;
        }
    }
    Ok(true)
}
