//! What can stand where the file should be.

use std::fs;
use std::path::Path;

use hodei_core::store::{Consistency, JobStore, Scope};
use hodei_core::{ErrorKind, JobId, Tenant};
use hodei_store_redb::{RedbStore, Verify};
use redb::{Database, TableDefinition};

use crate::child::{Order, spawn};
use crate::env::{Env, everything, job, job_of, spec, submit};
use crate::reopen::populate;

const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");

fn kind_of(path: &Path) -> ErrorKind {
    RedbStore::open(path).expect_err("this is no store").kind()
}

/// A file with a table of the name `meta`, written by somebody else or by a version of the future.
fn meta_file(path: &Path, row: &[u8]) {
    let db = Database::create(path).expect("a new file");
    let txn = db.begin_write().expect("a sound file");
    txn.open_table(META).expect("a new table").insert(&b"schema"[..], row).expect("room");
    txn.commit().expect("room");
}

/// A row with a number, as the format says it: format, number, checksum.
fn number_row(number: u8) -> Vec<u8> {
    let body = [0x21, number];
    [&body[..], &crc32fast::hash(&body).to_le_bytes()].concat()
}

#[tokio::test]
async fn it_is_open_once_at_a_time() {
    let env = Env::new();
    let store = env.open();
    let clone = store.clone();
    assert_eq!(env.builder().open().unwrap_err().kind(), ErrorKind::Locked);
    drop(store);
    assert_eq!(env.builder().open().unwrap_err().kind(), ErrorKind::Locked, "a clone is still there");
    let child = spawn(Order::Open, &env.path(), &[]).wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&child.stdout).contains("opened: Locked"), "{child:?}");
    assert_eq!(clone.counts(&Scope::All).await.unwrap().total(), 0, "the first one lives on");
    drop(clone);
    let child = spawn(Order::Open, &env.path(), &[]).wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&child.stdout).contains("opened: fine"), "{child:?}");
    drop(env.open());
}

#[test]
fn what_is_no_store_is_corrupt_and_stays_as_it_is() {
    let env = Env::new();
    let path = env.path();
    let noise: Vec<u8> = (0..200_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for bytes in [&b"x"[..], b"redb", b"Dear diary,\n", &[0; 4_096], &[0xff; 100], &noise] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(kind_of(&path), ErrorKind::Corrupt, "{} bytes", bytes.len());
        assert!(fs::read(&path).unwrap() == bytes, "{} bytes were changed", bytes.len());
    }
}

#[test]
fn a_database_of_another_program_is_corrupt_and_stays_as_it_is() {
    let env = Env::new();
    let path = env.path();
    let db = Database::create(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(TableDefinition::<u64, u64>::new("songs")).unwrap().insert(1, 2).unwrap();
    txn.commit().unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    assert_eq!(kind_of(&path), ErrorKind::Corrupt);
    assert!(fs::read(&path).unwrap() == before);
    for row in [&b""[..], b"1", &[0x21, 1, 0, 0, 0, 0]] {
        fs::remove_file(&path).unwrap();
        meta_file(&path, row);
        assert_eq!(kind_of(&path), ErrorKind::Corrupt, "{row:?}");
    }
}

#[test]
fn a_file_of_a_newer_version_is_told_and_not_touched() {
    let env = Env::new();
    let path = env.path();
    meta_file(&path, &number_row(7));
    let before = fs::read(&path).unwrap();
    for verify in [Verify::AfterCrash, Verify::Always] {
        let error = env.builder().verify(verify).open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaTooNew);
        assert_eq!((error.context("schema"), error.context("known")), (Some("7"), Some("6")));
        assert!(fs::read(&path).unwrap() == before, "not one byte is another");
    }
}

#[tokio::test]
async fn a_missing_table_is_corrupt() {
    let env = Env::new();
    populate(&env, &env.open()).await;
    let whole = fs::read(env.path()).unwrap();
    let db = Database::create(env.path()).unwrap();
    let names: Vec<String> = {
        use redb::{ReadableDatabase, TableHandle};
        db.begin_read().unwrap().list_tables().unwrap().map(|table| table.name().to_owned()).collect()
    };
    drop(db);
    assert_eq!(names.len(), 22);
    for name in names {
        fs::write(env.path(), &whole).unwrap();
        let db = Database::create(env.path()).unwrap();
        let txn = db.begin_write().unwrap();
        assert!(txn.delete_table(TableDefinition::<&[u8], &[u8]>::new(&name)).unwrap());
        txn.commit().unwrap();
        drop(db);
        assert_eq!(kind_of(&env.path()), ErrorKind::Corrupt, "without {name}");
    }
}

#[tokio::test]
async fn a_table_of_other_types_is_corrupt() {
    let env = Env::new();
    drop(env.open());
    let db = Database::create(env.path()).unwrap();
    let txn = db.begin_write().unwrap();
    assert!(txn.delete_table(TableDefinition::<&[u8], &[u8]>::new("open")).unwrap());
    txn.open_table(TableDefinition::<u64, u64>::new("open")).unwrap().insert(1, 2).unwrap();
    txn.commit().unwrap();
    drop(db);
    assert_eq!(kind_of(&env.path()), ErrorKind::Corrupt);
}

#[tokio::test]
async fn an_empty_file_and_an_empty_database_become_stores() {
    let env = Env::new();
    fs::write(env.path(), b"").unwrap();
    submit(&env.open(), vec![job()]).await;
    assert_eq!(everything(&env.open()).await.unwrap().jobs.len(), 1);
    fs::remove_file(env.path()).unwrap();
    // As a crash between the making of the file and that of the tables leaves it.
    drop(Database::create(env.path()).unwrap());
    submit(&env.open(), vec![job()]).await;
    assert_eq!(everything(&env.open()).await.unwrap().jobs.len(), 1);
}

#[tokio::test]
async fn a_file_that_was_cut_is_an_error_at_every_length() {
    let env = Env::new();
    populate(&env, &env.open()).await;
    let whole = fs::read(env.path()).unwrap();
    for eighth in 0..24 {
        let mut cut = whole.clone();
        cut.truncate((whole.len() * eighth / 24).max(1));
        fs::write(env.path(), &cut).unwrap();
        assert_eq!(kind_of(&env.path()), ErrorKind::Corrupt, "{} of {}", cut.len(), whole.len());
    }
}

#[test]
fn what_is_no_file_is_an_error_of_input_and_output() {
    let env = Env::new();
    assert_eq!(kind_of(env.dir.path()), ErrorKind::Io);
    assert_eq!(kind_of(&env.dir.path().join("missing").join("jobs.redb")), ErrorKind::Io);
    assert_eq!(kind_of(Path::new("/dev/null")), ErrorKind::Io);
    assert_eq!(kind_of(Path::new("/dev/full")), ErrorKind::Io);
    assert_eq!(kind_of(Path::new("a\0b")), ErrorKind::Io);
    assert_eq!(kind_of(Path::new("")), ErrorKind::Io);
    assert_eq!(kind_of(&env.dir.path().join("x".repeat(300))), ErrorKind::Io);
}

/// Nobody writes to the other end: an open that waited for somebody would wait for ever.
#[cfg(unix)]
#[test]
fn pipes_sockets_and_links_to_nowhere_are_errors_at_once() {
    let env = Env::new();
    let path = |name: &str| env.dir.path().join(name);
    let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().expect("the program mkfifo");
    assert!(made.success());
    assert_eq!(kind_of(&path("pipe")), ErrorKind::Io);
    let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    assert_eq!(kind_of(&path("socket")), ErrorKind::Io);
    std::os::unix::fs::symlink(path("loop"), path("loop")).unwrap();
    assert_eq!(kind_of(&path("loop")), ErrorKind::Io);
    std::os::unix::fs::symlink(path("missing").join("jobs.redb"), path("astray")).unwrap();
    assert_eq!(kind_of(&path("astray")), ErrorKind::Io);
    std::os::unix::fs::symlink("/dev/full", path("full")).unwrap();
    assert_eq!(kind_of(&path("full")), ErrorKind::Io);
}

/// What a file may hold is no affair of a store, as long as it can be read and written.
#[cfg(unix)]
#[tokio::test]
async fn a_file_of_any_permissions_and_a_link_to_a_file_open() {
    use std::os::unix::fs::PermissionsExt as _;
    let env = Env::new();
    submit(&env.open(), vec![job()]).await;
    fs::set_permissions(env.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let link = env.dir.path().join("link.redb");
    std::os::unix::fs::symlink(env.path(), &link).unwrap();
    assert_eq!(RedbStore::open(&link).unwrap().counts(&Scope::All).await.unwrap().total(), 1);
    let mode = fs::metadata(env.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666, "they are left as they are");
}

/// A header with another byte, in its first part at every place: told, or without effect, and never a wrong answer.
#[tokio::test]
async fn a_header_with_any_other_byte_is_told_or_without_effect() {
    let env = Env::new();
    populate(&env, &env.open()).await;
    let before = everything(&env.open()).await.unwrap();
    let whole = fs::read(env.path()).unwrap();
    let (mut told, mut same) = (0, 0);
    for at in (0..64).chain((64..320).step_by(7)) {
        let mut other = whole.clone();
        other[at] = !other[at];
        fs::write(env.path(), &other).unwrap();
        match env.builder().verify(Verify::Always).open() {
            Ok(store) => {
                assert_eq!(everything(&store).await.unwrap(), before, "byte {at}");
                same += 1;
            }
            Err(error) => {
                let kinds = [ErrorKind::Corrupt, ErrorKind::Io, ErrorKind::Locked];
                assert!(kinds.contains(&error.kind()), "byte {at}: {error:?}");
                told += 1;
            }
        }
    }
    assert!(told > 0 && same > 0, "{told} told, {same} without effect: both are seen");
}

#[test]
fn a_limit_of_zero_is_told_by_name_before_the_file_is_made() {
    let env = Env::new();
    for (builder, field) in [
        (env.builder().group_calls(0), "group_calls"),
        (env.builder().group_items(0), "group_items"),
        (env.builder().waiting_calls(0), "waiting_calls"),
        (env.builder().migrate_jobs(0), "migrate_jobs"),
    ] {
        let told = [
            builder.clone().open().map(drop).unwrap_err(),
            builder.clone().compact().map(drop).unwrap_err(),
            builder.import(&b""[..]).map(drop).unwrap_err(),
        ];
        for error in told {
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(field), "{error}");
        }
    }
    assert!(!env.path().exists());
}

#[test]
fn those_who_open_at_once_share_one_new_file_and_leave_no_other() {
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new.redb");
        let open = || RedbStore::open(&path).map_err(|error| error.kind());
        let opened = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..3).map(|_| scope.spawn(open)).collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect::<Vec<_>>()
        });
        let (stores, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
        assert_eq!(stores.len(), 1, "{refused:?}");
        assert!(refused.into_iter().all(|error| error.unwrap_err() == ErrorKind::Locked));
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["new.redb"]);
    }
}

/// Ended jobs with a word that stands nowhere else, in a file that was closed and in one that was not.
async fn with_a_word(env: &Env, word: &str) -> (JobId, Vec<u8>, Vec<u8>) {
    let store = env.open();
    let ids = submit(&store, vec![job_of(&Tenant::default(), spec().label("word", word))]).await;
    store.request_cancel(&Scope::All, ids.clone()).await.expect("cancelled");
    // Later commits leave the row where it is.
    submit(&store, vec![job()]).await;
    submit(&store, vec![job()]).await;
    let open = fs::read(env.path()).expect("a file");
    drop(store);
    (ids[0], fs::read(env.path()).expect("a file"), open)
}

#[tokio::test]
async fn a_file_is_verified_as_its_policy_says() {
    const WORD: &str = "a-word-that-stands-nowhere-else";
    let env = Env::new();
    let (id, closed, open) = with_a_word(&env, WORD).await;
    let damaged = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let places: Vec<usize> =
            (0..bytes.len() - WORD.len()).filter(|at| bytes[*at..].starts_with(WORD.as_bytes())).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at] ^= 1);
        bytes
    };
    for policy in [Verify::Never, Verify::AfterCrash, Verify::Always] {
        for sound in [&closed, &open] {
            fs::write(env.path(), sound).unwrap();
            drop(env.builder().verify(policy).open().unwrap());
        }
        // What nobody reads at an opening is damaged.
        fs::write(env.path(), damaged(&closed)).unwrap();
        match (policy, env.builder().verify(policy).open()) {
            (Verify::Always, Err(error)) => assert_eq!(error.kind(), ErrorKind::Corrupt),
            (Verify::Never | Verify::AfterCrash, Ok(store)) => {
                let read = store.get_many(&Scope::All, vec![id], Consistency::Latest).await;
                assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt, "told when it is read");
            }
            (policy, opened) => panic!("{policy:?}: {opened:?}"),
        }
        // After a crash the database itself looks at everything, asked or not.
        fs::write(env.path(), damaged(&open)).unwrap();
        assert_eq!(env.builder().verify(policy).open().unwrap_err().kind(), ErrorKind::Corrupt, "{policy:?}");
    }
}

#[test]
fn nothing_is_made_where_there_is_nothing_to_compact() {
    let env = Env::new();
    assert_eq!(env.builder().compact().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_dir(env.dir.path()).unwrap().count(), 0);
}
