//! Every planted bug is found.

use hodei_sched::sim::{Bug, Campaign, Options, SimpleAgent};

/// In how many seeds a planted bug must show.
const SEEDS_MAX: u64 = 200;

#[test]
fn every_planted_bug_is_found() {
    let only = std::env::var("HODEI_SIM_BUG").ok();
    let mut missed = Vec::new();
    for bug in Bug::ALL.into_iter().filter(|bug| only.as_ref().is_none_or(|only| *only == bug.to_string())) {
        let campaign =
            Campaign::run::<SimpleAgent>(0..SEEDS_MAX, 200, 1, |seed| Options::swarm(seed).bug(bug)).unwrap();
        match campaign.failed.first() {
            Some(failed) => println!("{bug}: found in seed {}, {}", campaign.seeds, failed.first),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} seeds: {missed:?}");
}
