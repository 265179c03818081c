//! The limit of the machine: puts into one table of redb under ordered keys, synced with every commit.

use std::ops::{Bound, Range};
use std::path::Path;
use std::time::{Duration, Instant};

use redb::{Database, TableDefinition};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("raw");
/// The bytes of a key.
const KEY: usize = 8;

/// So many rows of so many bytes in all, in so many commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Puts {
    /// Rows.
    pub rows: u64,
    /// The bytes of all rows, their keys included.
    pub bytes: u64,
    /// Synced commits.
    pub commits: u64,
}

/// How rows get into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each by an insert of its own: what the goals are about.
    Insert,
    /// Through a cursor that fills one leaf after the other: as fast as redb can.
    Cursor,
}

/// A file into which rows are put.
#[derive(Debug)]
pub struct Raw {
    database: Database,
    next: u64,
}

impl Raw {
    /// Makes it.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    #[must_use]
    pub fn new(file: &Path) -> Self {
        Self { database: Database::create(file).expect("a database"), next: 0 }
    }

    /// Puts rows behind those that are there, and returns how long it took.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    pub fn put(&mut self, puts: Puts, way: Way) -> Duration {
        let bytes = usize::try_from(puts.bytes / puts.rows.max(1)).expect("a row fits into memory");
        let value = vec![7_u8; bytes.saturating_sub(KEY)];
        let (start, first) = (Instant::now(), self.next);
        for commit in 0..puts.commits {
            let from = puts.rows * commit / puts.commits;
            self.commit(first + from..first + puts.rows * (commit + 1) / puts.commits, &value, way);
        }
        self.next = first + puts.rows;
        start.elapsed()
    }

    fn commit(&self, mut rows: Range<u64>, value: &[u8], way: Way) {
        let write = self.database.begin_write().expect("a transaction");
        {
            let mut table = write.open_table(TABLE).expect("a table");
            match way {
                Way::Insert => rows.for_each(|row| drop(table.insert(row, value).expect("a put"))),
                Way::Cursor => {
                    let mut end = table.upper_bound_mut(Bound::<u64>::Unbounded).expect("a cursor");
                    rows.try_for_each(|row| end.insert_before(row, value)).expect("a put");
                    end.close().expect("a put");
                }
            }
        }
        write.commit().expect("a commit");
    }
}

/// Puts rows into a new file, each by an insert, and returns how long it took.
///
/// # Panics
///
/// When the file cannot be written.
#[must_use]
pub fn put(file: &Path, puts: Puts) -> Duration {
    Raw::new(file).put(puts, Way::Insert)
}
