//! Runs that have too much memory, and those that the kernel kills for want of it.

use std::fs;

use super::support::{Env, script};
use crate::{
    execute::process::{CommandPlan, EndedBy, MemoryWatch},
    sys::Exit,
};

const MIB: u64 = 1 << 20;
const KILLED: Exit = Exit::Signal { number: 9, core_dumped: false };

/// Has so many bytes in a buffer until somebody reads them, two seconds later.
fn holder(bytes: u64) -> String {
    format!("dd if=/dev/zero bs={bytes} count=1 status=none | (sleep 2; cat > /dev/null)")
}

fn large() -> CommandPlan {
    script(&holder(64 * MIB))
}

fn watched(mut plan: CommandPlan, set_aside: u64, hold: bool) -> CommandPlan {
    plan.memory = Some(MemoryWatch { set_aside, hold });
    plan
}

#[tokio::test]
async fn what_has_more_than_was_set_aside_is_killed() {
    let (finished, _) = Env::new().run(watched(large(), 32 * MIB, true)).await;
    assert_eq!((finished.exit, finished.ended_by), (KILLED, EndedBy::Memory));
    // It may be seen while it still asks for more.
    assert!(finished.memory.is_some_and(|bytes| bytes > 32 * MIB), "{finished:?}");
    assert!(!finished.starved, "that was not the kernel");
}

#[tokio::test]
async fn all_processes_of_the_session_count() {
    // Each of them has half of it.
    let half = holder(32 * MIB);
    let two = script(&format!("{half} & {half} & wait"));
    let (finished, _) = Env::new().run(watched(two, 48 * MIB, true)).await;
    assert_eq!((finished.exit, finished.ended_by), (KILLED, EndedBy::Memory));
}

#[tokio::test]
async fn what_has_enough_or_is_only_measured_goes_on() {
    for (set_aside, hold) in [(512 * MIB, true), (MIB, false)] {
        let (finished, _) = Env::new().run(watched(large(), set_aside, hold)).await;
        assert_eq!((finished.exit, finished.ended_by), (Exit::Code(0), EndedBy::Itself));
        assert!(finished.memory.is_some_and(|bytes| bytes > 60 * MIB), "{finished:?}");
    }
}

#[tokio::test]
async fn what_processes_share_is_not_counted_for_each() {
    // The shells are forks of the one that has the text, and share it.
    let text = "t=$(head -c 16777216 /dev/zero | tr '\\0' x); for n in 1 2 3 4 5 6; do (sleep 0.4; : \"$n\") & done; wait";
    let (finished, _) = Env::new().run(watched(script(text), 80 * MIB, true)).await;
    assert_eq!((finished.exit, finished.ended_by), (Exit::Code(0), EndedBy::Itself), "{finished:?}");
}

#[tokio::test]
async fn a_kill_is_the_kernels_only_when_it_says_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path();
    let counts = |n: u32| fs::write(path, format!("oom_kill {n}\n")).unwrap();
    let counting = |n: u32| format!("echo oom_kill {n} > {}", path.display());
    let cases = [
        ("kill -9 $$".to_owned(), KILLED, false),
        (format!("{}; kill -9 $$", counting(8)), KILLED, true),
        // Its child was killed.
        (format!("{}; exit 137", counting(8)), Exit::Code(137), true),
        (format!("{}; exit 1", counting(8)), Exit::Code(1), false),
        (format!("{}; kill -15 $$", counting(8)), Exit::Signal { number: 15, core_dumped: false }, false),
    ];
    for (text, exit, starved) in cases {
        counts(7);
        let (finished, _) = Env::counting(path).run(script(&text)).await;
        assert_eq!((finished.exit, finished.starved), (exit, starved), "{text}");
    }
    fs::remove_file(path).unwrap();
    let (finished, _) = Env::counting(path).run(script("kill -9 $$")).await;
    assert!(!finished.starved, "nobody counts");
}
