//! The same seed gives the same trace, also in another process.

use std::process::Command;

use hodei_sched::sim::{Options, SimpleAgent, Simulation};

/// The hashes of the traces of some seeds, as text.
fn hashes() -> String {
    let hash = |seed| {
        let outcome =
            Simulation::<SimpleAgent>::swarm(Options::swarm(seed), 120).expect("a valid load").run();
        format!("{:016x}/{}", outcome.trace_hash, outcome.trace_lines)
    };
    (0..12).map(hash).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_seed_gives_the_same_trace_in_every_process() {
    if std::env::var_os("HODEI_SIM_TELL").is_some() {
        return println!("hashes: {}", hashes());
    }
    let here = hashes();
    assert_eq!(here, hashes(), "twice in one process");
    let name = "repeat::a_seed_gives_the_same_trace_in_every_process";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env("HODEI_SIM_TELL", "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(told.contains(&format!("hashes: {here}\n")), "another process has other traces: {told}");
}

#[test]
fn a_seed_decides_what_happens() {
    let hash = |seed| Simulation::<SimpleAgent>::swarm(Options::swarm(seed), 120).unwrap().run().trace_hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn the_tail_is_the_end_of_the_trace_and_changes_nothing() {
    let run = |tail| Simulation::<SimpleAgent>::swarm(Options::swarm(3).tail(tail), 120).unwrap().run();
    let (without, with) = (run(0), run(10));
    assert_eq!(without.trace_hash, with.trace_hash);
    assert_eq!((without.tail.len(), with.tail.len()), (0, 10));
}
