//! The long proofs: what a change need not wait for and a release must pass.
//!
//! To add one, add an entry to [`PROOFS`]; its size belongs in the environment of its command line, so that the same test
//! runs small among the others and at full size here. A command that runs tests says `must_test`.

use crate::stage::{Stage, Step};

/// Every proof of `cargo xtask proof`, in the order in which they run.
pub(crate) const PROOFS: &[Stage] = &[
    Stage {
        name: "kill9",
        shows: "no acknowledged submission is lost when the host is killed at any moment",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-tests --test it -- kill_nine --nocapture",
        )
        .env(&[("HODEI_KILLS", "200")])
        .must_test()],
    },
    Stage {
        name: "kill9-store",
        shows: "no acknowledged job is lost when the process of a store is killed at any moment",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-store-redb --test it -- kill:: --nocapture",
        )
        .env(&[("HODEI_STORE_KILLS", "1000")])
        .must_test()],
    },
    Stage {
        name: "pg-faults",
        shows: "no acknowledged job is lost and no stale write is taken while PostgreSQL restarts, connections break, \
                a standby takes over, the clock is set, and nodes race, freeze and die",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-store-pg --all-features --test it -- faults:: --nocapture",
        )
        .env(&[
            ("HODEI_PG_RESTARTS", "300"),
            ("HODEI_PG_TERMINATIONS", "2000"),
            ("HODEI_PG_CUTS", "2000"),
            ("HODEI_PG_RACE", "20000"),
            ("HODEI_PG_BOUNCES", "50"),
            ("HODEI_PG_FREEZES", "100"),
            ("HODEI_PG_NODE_KILLS", "100"),
            ("HODEI_PG_WORK_KILLS", "1000"),
            ("HODEI_PG_FAILOVERS", "20"),
            ("HODEI_PG_CLOCKS", "200"),
        ])
        .must_test()],
    },
    Stage {
        name: "pg-plans",
        shows: "no statement of the PostgreSQL store reads a large table whole with a million jobs in it",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-store-pg --all-features --test store -- plans:: --nocapture",
        )
        .env(&[("HODEI_PG_PLAN_JOBS", "1000000")])
        .must_test()],
    },
    Stage {
        name: "pg-migrate",
        shows: "nobody waits for 200 ms while a database of five million jobs is migrated, or gets a part beside so large a rest",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-store-pg --all-features --test store -- migrate:: --nocapture",
        )
        .env(&[("HODEI_PG_MIGRATE_ROWS", "5000000")])
        .must_test()],
    },
    Stage {
        name: "tier-faults",
        shows: "a Redis that is killed, frozen, cut, flushed and poisoned changes no answer of the cache before it",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-store-pg --all-features --test it -- cache:: --nocapture",
        )
        .env(&[("HODEI_TIER_FAULTS", "2000")])
        .must_test()],
    },
    Stage {
        name: "audit",
        shows: "a long audit trail is written and verified whole, and every tampering is named with its row",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-store-pg --all-features --test it -- audit:: --nocapture",
        )
        .env(&[("HODEI_AUDIT_RECORDS", "1000000")])
        .must_test()],
    },
    Stage {
        name: "power",
        shows: "nothing acknowledged is lost when the power or the disk fails, and every file opens again",
        steps: &[
            Step::new(
                "cargo test --release --locked --package hodei-store-redb --test it -- faults::power --nocapture",
            )
            .env(&[("HODEI_POWER_CUTS", "100000")])
            .must_test(),
            Step::new(
                "cargo test --release --locked --package hodei-store-redb --test it -- faults::failing --nocapture",
            )
            .env(&[("HODEI_DISK_FAULTS", "20000")])
            .must_test(),
        ],
    },
    Stage {
        name: "damage",
        shows: "a damaged file says what was written or that it is damaged; by default 0 wrong rows and 0 panics",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-store-redb --test it -- faults::damage --nocapture",
        )
        .env(&[("HODEI_IMAGES", "50000")])
        .must_test()],
    },
    Stage {
        name: "sim",
        shows: "no seed of the simulated cluster breaks a guarantee, and every planted bug is found",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-tests --test it -- simulator:: --nocapture --test-threads 1",
        )
        .env(&[("HODEI_SIM_SEEDS", "0..6000")])
        .must_test()],
    },
    Stage {
        name: "fuzz",
        shows: "the corpora of the fuzz targets and random changes of them find nothing",
        steps: &[Step::new(
            "cargo test --release --locked --manifest-path fuzz/Cargo.toml --no-default-features -- --nocapture",
        )
        .env(&[("HODEI_FUZZ_SECONDS", "120")])
        .must_test()],
    },
    Stage {
        name: "model",
        shows: "stores agree with the model on long random histories",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-core --package hodei-store-redb --all-features",
        )
        .env(&[("HODEI_MODEL_CASES", "2000")])
        .must_test()],
    },
    Stage {
        name: "bus-model",
        shows: "no interleaving of publishers and readers of the bus loses an event or a wake-up",
        steps: &[
            Step::new("cargo test --release --locked --package hodei-bus --lib -- model")
                .env(&[("RUSTFLAGS", "--cfg hodei_loom"), ("CARGO_TARGET_DIR", "target/loom")])
                .must_test(),
            Step::new("cargo test --release --locked --package hodei-bus --lib -- model")
                .env(&[("RUSTFLAGS", "--cfg hodei_shuttle"), ("CARGO_TARGET_DIR", "target/shuttle")])
                .must_test(),
            Step::new("cargo test --locked --package hodei-bus --test it -- ring::")
                .env(&[("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "valgrind --quiet --error-exitcode=9")])
                .must_test(),
        ],
    },
    Stage {
        name: "sched-model",
        shows: "no interleaving of the scheduler's lock-free queues loses a job, repeats one or misses a wake-up",
        steps: &[
            Step::new("cargo test --release --locked --package hodei-sched --lib -- queue::explored")
                .env(&[("RUSTFLAGS", "--cfg hodei_loom"), ("CARGO_TARGET_DIR", "target/loom")])
                .must_test(),
            Step::new("cargo test --release --locked --package hodei-sched --lib -- queue::explored")
                .env(&[("RUSTFLAGS", "--cfg hodei_shuttle"), ("CARGO_TARGET_DIR", "target/shuttle")])
                .must_test(),
        ],
    },
    Stage {
        name: "bus-kills",
        shows: "no event is lost, repeated or out of order when a NATS server is killed again and again",
        steps: &[Step::new(
            "cargo test --release --locked --package hodei-bus --features nats --test it -- nats:: --nocapture",
        )
        .env(&[("HODEI_NATS_KILLS", "20"), ("HODEI_NATS_EVENTS", "500000")])
        .must_test()],
    },
    Stage {
        name: "figures",
        shows: "the figures of the benchmark suite, measured in full, each beside its goal",
        steps: &[
            Step::new("cargo bench --locked --package hodei-benches --benches"),
            Step::new(
                "cargo test --release --locked --package hodei-store-redb --lib -- figures --nocapture",
            )
            .env(&[("HODEI_CODEC_TIMES", "100000")])
            .must_test(),
        ],
    },
    Stage {
        name: "compare",
        shows: "the engine beside the engines that one would embed instead, in one run",
        steps: &[
            Step::new("cargo run --release --locked --manifest-path benches/compare/Cargo.toml"),
            Step::new("cargo run --release --locked --manifest-path benches/compare/bus/Cargo.toml"),
        ],
    },
    Stage {
        name: "compare-pg",
        shows: "the engine on PostgreSQL beside the job queues for it, on one server, in one run",
        steps: &[Step::new("cargo run --release --locked --manifest-path benches/compare-pg/Cargo.toml")],
    },
];

/// Finds the proof called `name`.
///
/// # Errors
///
/// An unknown name is answered with the known ones.
pub(crate) fn named(name: &str) -> Result<Stage, String> {
    PROOFS.iter().find(|proof| proof.name == name).copied().ok_or_else(|| {
        let known: Vec<&str> = PROOFS.iter().map(|proof| proof.name).collect();
        format!("no proof is called `{name}`; there are {}", known.join(", "))
    })
}

/// Prints each proof with what it shows and its command line.
pub(crate) fn list() {
    for proof in PROOFS {
        println!("{:<12} {}", proof.name, proof.shows);
        for step in proof.steps {
            println!("{:<12}   {step}", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PROOFS, named};

    #[test]
    fn every_proof_has_its_own_name_and_can_be_found_by_it() {
        for (index, proof) in PROOFS.iter().enumerate() {
            assert_eq!(named(proof.name).map(|found| found.shows), Ok(proof.shows));
            assert!(PROOFS[..index].iter().all(|earlier| earlier.name != proof.name));
        }
    }
}
