//! The limit of the machine: puts into one table of redb under ordered keys, synced with every commit.

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

/// Puts them into a new file and returns how long it took.
///
/// # Panics
///
/// When the file cannot be written.
#[must_use]
pub fn put(file: &Path, puts: Puts) -> Duration {
    let database = Database::create(file).expect("a database");
    let bytes = usize::try_from(puts.bytes / puts.rows.max(1)).expect("a row fits into memory");
    let value = vec![7_u8; bytes.saturating_sub(KEY)];
    let start = Instant::now();
    for commit in 0..puts.commits {
        let write = database.begin_write().expect("a transaction");
        {
            let mut table = write.open_table(TABLE).expect("a table");
            for row in puts.rows * commit / puts.commits..puts.rows * (commit + 1) / puts.commits {
                table.insert(row, value.as_slice()).expect("a put");
            }
        }
        write.commit().expect("a commit");
    }
    start.elapsed()
}
