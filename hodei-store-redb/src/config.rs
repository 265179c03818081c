//! How a store is opened.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hodei_core::store::{ChangeLog, LineCounts};
use hodei_core::{Clock, Error, ErrorKind, Fault, Result, SystemClock};

use crate::inner::compact;
use crate::lines::import;
use crate::store::RedbStore;
use crate::txn::Room;

/// When the checksum of every page of the file is verified, which reads the whole of it.
///
/// Each row has a checksum of its own that every read verifies, so that a damaged row is `Corrupt` either way. Damage
/// to what leads to a row, as to its key, may hide the row from a store that did not verify its file, or lead to the row as
/// it was some commits before; and damage to what the database notes of its free pages may make redb 4.6 panic while it
/// unwinds from a panic, which ends the process. A file that was verified says exactly what was written.
///
/// Of a file that was not closed, damage to the last commit cannot be told from a power cut in the middle of it: the
/// file is opened as it was one commit before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verify {
    /// Never by this store. redb 4.6 repairs a file that was not closed, which reads every page and checks it: only a file
    /// that was closed is opened without.
    Never,
    /// At the opening of a file that was not closed, whatever its repair looks at.
    AfterCrash,
    /// At every opening: one of a file that was closed then takes as long as one after a crash.
    #[default]
    Always,
}

/// How a store is opened: a file, and limits that each have a default.
#[derive(Clone, Debug)]
#[must_use = "a builder opens nothing until `open`"]
pub struct RedbStoreBuilder {
    pub(crate) path: PathBuf,
    pub(crate) cache_bytes: usize,
    pub(crate) changes: ChangeLog,
    pub(crate) verify: Verify,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) room: Room,
    pub(crate) group_calls: usize,
    pub(crate) group_items: usize,
    pub(crate) waiting_calls: usize,
    pub(crate) recent_jobs: usize,
    pub(crate) migrate_jobs: usize,
}

impl RedbStoreBuilder {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            cache_bytes: 256 << 20,
            changes: ChangeLog::All,
            verify: Verify::Always,
            clock: Arc::new(SystemClock),
            room: Room::UNBOUNDED,
            group_calls: 1_024,
            group_items: 10_000,
            waiting_calls: 4_096,
            recent_jobs: 16_384,
            migrate_jobs: 10_000,
        }
    }

    /// Sets how much memory the pages of the file may take, also while it is made or imported; 256 MiB unless set.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets which changes are recorded; all unless set.
    pub fn changes(mut self, changes: ChangeLog) -> Self {
        self.changes = changes;
        self
    }

    /// Sets when the whole file is verified; at every opening unless set.
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// Sets the clock that rules leases and eligibility; the operating system's unless set.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets how many jobs are kept; beyond it submissions fail with `Full`. Without limit unless set. What a run
    /// spawns with its end is stored all the same: the end cannot be refused.
    pub fn max_jobs(mut self, jobs: u64) -> Self {
        self.room.jobs = jobs;
        self
    }

    /// Sets how many jobs of one tenant may be unsettled at once; more are refused, one by one, as
    /// [`Refusal::TooMany`](hodei_core::store::Refusal::TooMany). Without limit unless set.
    pub fn tenant_max_open(mut self, jobs: u64) -> Self {
        self.room.tenant_open = jobs;
        self
    }

    /// Sets how many calls share one commit at most; 1,024 unless set.
    pub fn group_calls(mut self, calls: usize) -> Self {
        self.group_calls = calls;
        self
    }

    /// Sets after how many jobs, transitions and claims a commit takes no further call; 10,000 unless set.
    pub fn group_items(mut self, items: usize) -> Self {
        self.group_items = items;
        self
    }

    /// Sets how many calls may wait for the writer before further ones wait for room; 4,096 unless set.
    pub fn waiting_calls(mut self, calls: usize) -> Self {
        self.waiting_calls = calls;
        self
    }

    /// Sets how many submitted jobs are kept in memory for their claim, and how many claimed ones for their end; 16,384 of
    /// each unless set.
    pub fn recent_jobs(mut self, jobs: usize) -> Self {
        self.recent_jobs = jobs;
        self
    }

    /// Sets how many jobs of a file of an older schema are rewritten, or rows of it removed or counted, in one transaction of
    /// its migration at most; 10,000 unless set. While the file is in use it is 1,000 at most, unless somebody waits for the
    /// end. A migration that is interrupted goes on with the next opening.
    pub fn migrate_jobs(mut self, jobs: usize) -> Self {
        self.migrate_jobs = jobs;
        self
    }

    /// Makes a file that nobody has open as small as it can be, and says whether it became smaller. Rewrites much of it:
    /// for after a large pruning. A file of an older schema is migrated first.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is no file, and none is made; those of [`RedbStoreBuilder::open`].
    pub fn compact(self) -> Result<bool> {
        compact(&self)
    }

    /// Makes the file of lines that [`RedbStore::export`] wrote, and says how many rows there are. It gets its name when
    /// every line was read and all is synced: there is a whole store under the path, or nothing. Opened later, it has no
    /// recorded changes, and whoever held a job is dead.
    ///
    /// The lines are read and stored so many at a time, whatever their number; blocks meanwhile. Killed meanwhile, it leaves a
    /// file beside the path, as [`RedbStore::backup`] does.
    ///
    /// # Errors
    ///
    /// `Conflict`: there is something under the path. `Invalid`: a line is refused, which the context `line` and the field of
    /// the fault name; `SchemaTooNew`: the text is of a later version of the format. `Io` and `Full`, when the text cannot be
    /// read or the file not written; `Config` for a limit of zero.
    pub fn import(self, lines: impl BufRead) -> Result<LineCounts> {
        import(&self, lines)
    }

    /// Opens the file, or makes it. Blocks while the file is verified, or repaired because it was not closed. A file of an older
    /// schema is migrated while it is in use, in bounded transactions ([`RedbStoreBuilder::migrate_jobs`]); one of schema 1
    /// is rewritten before.
    ///
    /// # Errors
    ///
    /// `Locked` while it is open elsewhere, after a quarter of a second, for which a killed process may still hold it;
    /// `Corrupt` for a file that is damaged or no store, `SchemaTooNew` for one of a newer version, which is left
    /// untouched, `Config` for a limit of zero, and `Io`, also where the path is that of something else than a file, and
    /// where a new file would be on a file system without hard links.
    pub fn open(self) -> Result<RedbStore> {
        RedbStore::start(self)
    }

    /// Refuses a limit with which nothing could go on. Whoever takes a file in hand asks before.
    pub(crate) fn checked(&self, op: &'static str) -> Result<()> {
        let limits = [
            ("group_calls", self.group_calls),
            ("group_items", self.group_items),
            ("waiting_calls", self.waiting_calls),
            ("migrate_jobs", self.migrate_jobs),
        ];
        match limits.into_iter().find(|(_, limit)| *limit == 0) {
            Some((field, _)) => {
                Err(Error::new(ErrorKind::Config, op).with("fault", Fault::new(field, "zero")))
            }
            None => Ok(()),
        }
    }
}
