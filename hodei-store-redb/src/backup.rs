//! A consistent copy of a file that is in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hodei_core::{Error, ErrorKind, Result};
use redb::{Builder, Database, Durability};

use crate::codec;
use crate::error::{failed, guarded};
use crate::reader::View;
use crate::table::Tab;

const OP: &str = "store.backup";
/// How many rows are copied in one transaction.
const ROWS: usize = 10_000;

/// What a backup copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// Rows, of every table.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// How much memory the pages of a copy take at most, beside those of the store: its rows come in the order of their keys.
const CACHE_MAX: usize = 32 << 20;

/// Copies a view to a file that is not there yet. The file gets its name when it is whole and synced.
pub(crate) fn copy(view: &Arc<View>, to: &Path, cache_bytes: usize) -> Result<Backup> {
    let mut done = Backup::default();
    let named = bear(to, OP, cache_bytes.min(CACHE_MAX), |db| {
        Tab::ALL.iter().try_for_each(|tab| guarded(OP, || copy_table(view, *tab, db, &mut done)))?;
        // The last commit syncs what those before it wrote.
        db.begin_write().map_err(failed(OP))?.commit().map_err(failed(OP))
    })?;
    if named { Ok(done) } else { Err(Error::new(ErrorKind::Conflict, OP).with("exists", to.display())) }
}

fn copy_table(view: &View, tab: Tab, db: &Database, done: &mut Backup) -> Result<()> {
    let mut rows = view.table(tab)?.range::<&[u8]>(..).map_err(failed(OP))?;
    loop {
        let mut txn = db.begin_write().map_err(failed(OP))?;
        txn.set_durability(Durability::None).map_err(failed(OP))?;
        let mut copied = 0;
        {
            let mut table = txn.open_table(tab.definition()).map_err(failed(OP))?;
            for row in rows.by_ref().take(ROWS) {
                let (key, value) = row.map_err(failed(OP))?;
                let (key, value) = (key.value(), value.value());
                codec::unseal(tab, key, value).map_err(|error| error.with("table", tab.name()))?;
                table.insert(key, value).map_err(failed(OP))?;
                copied += 1;
                done.bytes += (key.len() + value.len()) as u64;
            }
        }
        txn.commit().map_err(failed(OP))?;
        done.rows += copied as u64;
        if copied < ROWS {
            return Ok(());
        }
    }
}

/// Makes a file beside a path and gives it its name when it is whole, so that a death in between leaves nothing half-made
/// under that name. Says whether it got the name: whoever comes second finds it taken. Its pages take so much memory
/// meanwhile.
pub(crate) fn bear(
    path: &Path,
    op: &'static str,
    cache_bytes: usize,
    make: impl FnOnce(&Database) -> Result<()>,
) -> Result<bool> {
    static BORN: AtomicU64 = AtomicU64::new(0);
    let io = |source| failed(op)(redb::Error::Io(source));
    clear_stillborn(path);
    let mut unborn = path.as_os_str().to_owned();
    unborn.push(format!("{UNBORN}{}-{}", std::process::id(), BORN.fetch_add(1, Ordering::Relaxed)));
    let unborn = PathBuf::from(unborn);
    // A process of the same number may have died here.
    drop(std::fs::remove_file(&unborn));
    #[cfg(test)]
    tests::told(path, cache_bytes);
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    let made = builder.create(&unborn).map_err(failed(op)).and_then(|db| make(&db));
    let named = made.and_then(|()| match std::fs::hard_link(&unborn, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io(error)),
    });
    // Whatever became of it, nothing stays beside the path; what went wrong first is what is told.
    let removed = std::fs::remove_file(&unborn).map_err(io);
    let named = named.and_then(|named| removed.map(|()| named))?;
    let directory = std::fs::File::open(directory_of(path)).map_err(io)?;
    directory.sync_all().map_err(io)?;
    Ok(named)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// What stands between the name of a file and the numbers of its process and of its birth, until it has its name.
const UNBORN: &str = ".new-";

/// Removes what processes left beside a path that died while they made a file for it. Where nobody tells whether a process
/// lives, and where a file cannot be removed, it stays: it is in nobody's way.
fn clear_stillborn(path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    if !Path::new("/proc/self").exists() {
        return;
    }
    let is_stillborn = |other: &str| {
        let numbers = other.strip_prefix(name).and_then(|rest| rest.strip_prefix(UNBORN));
        let numbers = numbers.and_then(|numbers| numbers.split_once('-'));
        let numbers = numbers.and_then(|(process, birth)| process.parse().ok().zip(birth.parse().ok()));
        numbers.is_some_and(|(process, _): (u32, u64)| !Path::new(&format!("/proc/{process}")).exists())
    };
    for other in std::fs::read_dir(directory_of(path)).into_iter().flatten().flatten() {
        if other.file_name().to_str().is_some_and(is_stillborn) {
            drop(std::fs::remove_file(other.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use bytes::Bytes;
    use hodei_core::Name;
    use hodei_core::store::Shard as _;
    use redb::ReadableDatabase as _;

    use super::*;
    use crate::RedbStore;
    use crate::sync::lock;

    const CACHE: usize = 1 << 20;

    /// How much memory each file that was made was told to take; a std mutex, held for a look.
    static TOLD: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());

    /// Notes how much memory a file is told to take while it is made.
    pub(super) fn told(path: &Path, cache_bytes: usize) {
        lock(&TOLD).insert(path.to_owned(), cache_bytes);
    }

    /// Creation, a backup and an import each took what they found good.
    #[tokio::test]
    async fn whatever_makes_a_file_takes_no_more_memory_than_the_store_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (first, copied, read, large) =
            (path("first.redb"), path("copied.redb"), path("read.redb"), path("large.redb"));
        let store = RedbStore::builder(&first).cache_bytes(CACHE).open().unwrap();
        store.backup(&copied).await.unwrap();
        store.export(std::fs::File::create(path("lines")).unwrap()).await.unwrap();
        let lines = std::io::BufReader::new(std::fs::File::open(path("lines")).unwrap());
        RedbStore::builder(&read).cache_bytes(CACHE).import(lines).unwrap();
        copy(&lock(&store.inner().view).clone(), &large, usize::MAX).unwrap();
        let told = [first, copied, read, large].map(|path| lock(&TOLD).get(&path).copied());
        assert_eq!(told, [CACHE, CACHE, CACHE, CACHE_MAX].map(Some));
    }

    #[tokio::test]
    async fn an_open_file_takes_as_much_memory_as_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = RedbStore::builder(folder.path().join("jobs.redb")).cache_bytes(CACHE).open().unwrap();
        for number in 0..64 {
            let name = Name::new(format!("note-{number}")).unwrap();
            assert!(store.put_note(&name, 0, Bytes::from(vec![0; 128 << 10])).await.unwrap());
        }
        let stats = store.inner().db.cache_stats();
        assert!(stats.used_bytes() > 0 && stats.used_bytes() <= CACHE, "{stats:?}");
    }

    /// What is made beside a store took a gibibyte of memory, whatever the store was told to take.
    #[test]
    fn a_file_that_is_made_takes_as_much_memory_as_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let named = bear(&folder.path().join("new.redb"), OP, CACHE, |db| {
            let txn = db.begin_write().unwrap();
            let mut table = txn.open_table(Tab::Notes.definition()).unwrap();
            for number in 0..256_u32 {
                table.insert(&number.to_be_bytes()[..], &[0; 32 << 10][..]).unwrap();
            }
            drop(table);
            txn.commit().unwrap();
            let stats = db.cache_stats();
            assert!(stats.used_bytes() > 0 && stats.used_bytes() <= CACHE, "{stats:?}");
            Ok(())
        });
        assert!(named.unwrap());
    }
}
