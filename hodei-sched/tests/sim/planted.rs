//! Every planted bug is found, by several seeds, and nothing is found in them without it.

use hodei_sched::sim::{Bug, Campaign, Options, SimpleAgent};

/// In how many seeds a planted bug must show.
const SEEDS_MAX: u64 = 200;
/// How many seeds must show it: one that shows in one of them only may hide from the next change.
const FINDERS: usize = 2;

#[test]
fn every_planted_bug_is_found() {
    let only = std::env::var("HODEI_SIM_BUG").ok();
    let mut wrong = Vec::new();
    for bug in Bug::ALL.into_iter().filter(|bug| only.as_ref().is_none_or(|only| *only == bug.to_string())) {
        let planted = |seed| Options::swarm(seed).bug(bug);
        let campaign = Campaign::find::<SimpleAgent>(0..SEEDS_MAX, 200, FINDERS, planted).unwrap();
        for failed in &campaign.failed {
            println!("{bug}: found by seed {}, {}", failed.seed, failed.first);
            let without = |seed| {
                let mut options = planted(seed);
                options.bug = None;
                options
            };
            let seeds = failed.seed..failed.seed + 1;
            let control = Campaign::run::<SimpleAgent>(seeds, 200, 1, without).unwrap();
            wrong.extend(control.failed.iter().map(|failed| format!("without {bug}: {}", failed.told)));
        }
        if campaign.failed.len() < FINDERS {
            wrong.push(format!("{bug} was found by {} of {SEEDS_MAX} seeds", campaign.failed.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
