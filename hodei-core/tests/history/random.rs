//! Random runs: a correct store is never accused, and each bug of a wrong one is found.

use hodei_core::testkit::history::{Invariant, check};

use crate::mangled::Bug;
use crate::walk::{Plan, run, run_threads};

/// How many seeds the runs of a correct store take; `HODEI_SEEDS` sets another number.
fn seeds() -> u64 {
    std::env::var("HODEI_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

#[test]
fn a_correct_store_is_not_accused() {
    let (mut transitions, mut ordered, mut unknown) = (0, 0, 0);
    for seed in 0..seeds() {
        let report = check(&run(Plan::seeded(seed)));
        assert!(report.is_clean(), "seed {seed}: {report}");
        transitions += report.figures.transitions;
        ordered += report.figures.ordered;
        unknown += report.figures.unknown;
    }
    println!("{transitions} transitions, {ordered} claims in order, {unknown} calls of unknown outcome");
    assert!(transitions > 0 && ordered > 0 && unknown > 0, "the runs did something");
}

/// With every reply, each transition must have been announced: nothing is excused.
#[test]
fn a_correct_store_that_answers_everything_is_not_accused() {
    for seed in 0..seeds() / 3 {
        let report = check(&run(Plan { chaos: false, ..Plan::seeded(seed) }));
        assert!(report.is_clean(), "seed {seed}: {report}");
        assert_eq!(report.figures.unknown, 0);
    }
}

#[test]
fn a_correct_store_under_threads_is_not_accused() {
    for seed in 0..seeds() / 10 {
        let report = check(&run_threads(Plan { rounds: 60, ..Plan::seeded(seed) }));
        assert!(report.is_clean(), "seed {seed}: {report}");
    }
}

#[test]
fn a_seed_repeats_its_run() {
    // A firing mints ids of its own, so the entries differ by them.
    let [first, second] = [(); 2].map(|()| check(&run(Plan::seeded(7))).figures);
    assert_eq!(first, second);
}

/// How many seeds a bug may hide from.
const HIDES: u64 = 10;

#[test]
fn each_bug_of_a_store_is_found() {
    let bugs = [
        (Bug::ForgetsSubmissions, Invariant::NoLostAck),
        (Bug::StoresTwice, Invariant::IdempotentSubmit),
        (Bug::IgnoresContent, Invariant::IdempotentSubmit),
        (Bug::StoresRefused, Invariant::NoPhantom),
        (Bug::AcceptsStale, Invariant::LegalPath),
        (Bug::RefusesHolder, Invariant::Fencing),
        (Bug::ClaimsTwice, Invariant::EpochMonotone),
        (Bug::KeepsEpoch, Invariant::EpochMonotone),
        (Bug::CountsTwice, Invariant::RetryBound),
        (Bug::ForgetsLimits, Invariant::LimitsKept),
        (Bug::IgnoresPriority, Invariant::QueueOrder),
        (Bug::IgnoresCancel, Invariant::CleanCancel),
        (Bug::IgnoresScope, Invariant::TenantIsolation),
        (Bug::LogDrops, Invariant::LegalPath),
        (Bug::LogDrops, Invariant::EventStream),
        (Bug::LogRepeats, Invariant::LegalPath),
        (Bug::LogReorders, Invariant::LegalPath),
        (Bug::CountsLess, Invariant::Conservation),
        (Bug::QueueCountsLess, Invariant::Conservation),
        (Bug::ReusesLives, Invariant::EpochMonotone),
        (Bug::SharesTerms, Invariant::EpochMonotone),
        (Bug::FiresTwice, Invariant::OneJobPerFire),
        (Bug::ForgetsAtRestart, Invariant::RecoveryIdempotent),
    ];
    for (bug, invariant) in bugs {
        let found = (0..HIDES)
            .find(|seed| check(&run(Plan { bug: Some(bug), ..Plan::seeded(*seed) })).breaks(invariant));
        assert!(found.is_some(), "{bug:?} does not break {invariant} in {HIDES} seeds");
    }
}
