//! Seeds of the swarm: no guarantee is ever broken.

use std::ops::Range;

use hodei_sched::sim::{Campaign, Figures, Options, SimpleAgent};

/// The seeds to run: `HODEI_SIM_SEEDS=from..to`, or a few.
pub(crate) fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("HODEI_SIM_SEEDS") else { return default };
    let (from, to) = text.split_once("..").expect("HODEI_SIM_SEEDS is from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn no_seed_breaks_a_guarantee() {
    let jobs = std::env::var("HODEI_SIM_JOBS").map_or(200, |jobs| jobs.parse().expect("a number"));
    let tail = std::env::var("HODEI_SIM_TAIL").map_or(0, |lines| lines.parse().expect("a number"));
    let options = |seed| Options::swarm(seed).tail(tail);
    let seeds = seeds(0..150);
    let enough = seeds.end - seeds.start >= 100;
    let campaign = Campaign::run::<SimpleAgent>(seeds, jobs, 3, options).unwrap();
    println!("{campaign}");
    for failed in &campaign.failed {
        println!("{}", failed.told);
        println!(
            "replay: HODEI_SIM_SEEDS={}..{} HODEI_SIM_JOBS={jobs} cargo test --package hodei-sched --features sim --test sim \
             -- clean --nocapture",
            failed.seed,
            failed.seed + 1
        );
    }
    assert!(campaign.failed.is_empty(), "{} seeds failed", campaign.failed.len());
    let Figures { lent, preempted, rests, faults, stops, along, .. } = campaign.figures;
    let exercised = [lent, preempted, rests, faults, stops, along].iter().all(|times| *times > 10);
    assert!(exercised || !enough, "hardly anything of some kind happened: {campaign}");
}
