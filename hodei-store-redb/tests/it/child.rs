//! The other process: this very program, told by its environment what to do.

use std::env;
use std::fmt::Display;
use std::io::{Write as _, stdout};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hodei_store_redb::RedbStore;

use crate::{faults, kill, shards};

const ORDER: &str = "HODEI_REDB_TEST_ORDER";
const FILE: &str = "HODEI_REDB_TEST_FILE";

/// What another process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Opens the file and says how that went.
    Open,
    /// Submits and settles jobs without end, and says each that was acknowledged.
    Work,
    /// The same on a file of an older schema, few jobs of which are counted at a time.
    Count,
    /// Submits, settles and moves slots between two files without end, and says each that was acknowledged.
    Move,
    /// Opens damaged files and says what became of each.
    Examine,
}

/// Starts another process on a file; what it says comes through a pipe.
pub(crate) fn spawn(order: Order, file: &Path, more: &[(&str, &str)]) -> Child {
    start(Command::new(env::current_exe().expect("this program")), order, file, more)
}

/// Starts another process under a program that stands between it and the kernel.
pub(crate) fn spawn_under(mut under: Command, order: Order, file: &Path) -> Child {
    // What it says there of errors that were asked for is nobody's concern.
    under.arg(env::current_exe().expect("this program")).stderr(Stdio::null());
    start(under, order, file, &[])
}

fn start(mut program: Command, order: Order, file: &Path, more: &[(&str, &str)]) -> Child {
    program
        .args(["--exact", "child::it_does_what_its_environment_says", "--nocapture", "--test-threads=1"])
        .env(ORDER, format!("{order:?}"))
        .env(FILE, file)
        .envs(more.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process more")
}

/// Says something to the parent, past the capture of the test harness.
pub(crate) fn say(line: impl Display) {
    let mut out = stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the parent listens");
}

#[test]
fn it_does_what_its_environment_says() {
    let file = env::var_os(FILE);
    match env::var(ORDER).as_deref() {
        Ok("Open") => match RedbStore::open(file.unwrap()) {
            Ok(_) => say("opened: fine"),
            Err(error) => say(format_args!("opened: {:?}", error.kind())),
        },
        Ok("Move") => shards::work(file.unwrap().as_ref()),
        Ok("Examine") => faults::examine(),
        Ok("Count") => kill::work(RedbStore::builder(file.unwrap()).migrate_jobs(4).open().unwrap()),
        Ok("Work") => kill::work(RedbStore::open(file.unwrap()).unwrap()),
        _ => assert_eq!(file, None, "without an order there is nothing to do"),
    }
}
