//! The checks of a change, cheapest first.

use std::time::Duration;

use crate::stage::{Stage, Step};

/// How long an example may run once it is built.
const EXAMPLE_LIMIT: Duration = Duration::from_secs(60);

/// How long tests and benchmarks may print nothing, once they are built: the slowest of them takes two minutes on two cores.
const SILENCE: Duration = Duration::from_secs(600);

/// Every stage of `cargo xtask ci`, in the order in which they run.
pub(crate) const STAGES: &[Stage] = &[
    Stage {
        name: "fmt",
        shows: "every source file is formatted",
        steps: &[
            Step::new("cargo fmt --all --check"),
            Step::new("cargo fmt --manifest-path benches/compare/Cargo.toml --check"),
            Step::new("cargo fmt --manifest-path benches/compare/effectum/Cargo.toml --check"),
            Step::new("cargo fmt --manifest-path benches/compare/bus/Cargo.toml --check"),
            Step::new("cargo fmt --manifest-path benches/compare-pg/Cargo.toml --check"),
            Step::new("cargo fmt --manifest-path fuzz/Cargo.toml --check"),
        ],
    },
    Stage {
        name: "outside",
        shows: "the lock files of the packages outside of the workspace go with their manifests and with ours",
        steps: &[
            Step::new("cargo tree --quiet --locked --depth 0 --manifest-path benches/compare/Cargo.toml"),
            Step::new(
                "cargo tree --quiet --locked --depth 0 --manifest-path benches/compare/effectum/Cargo.toml",
            ),
            Step::new("cargo tree --quiet --locked --depth 0 --manifest-path benches/compare/bus/Cargo.toml"),
            Step::new("cargo tree --quiet --locked --depth 0 --manifest-path benches/compare-pg/Cargo.toml"),
            Step::new("cargo tree --quiet --locked --depth 0 --manifest-path fuzz/Cargo.toml"),
        ],
    },
    Stage {
        name: "clippy",
        shows: "no lint fires on any target with every feature on",
        steps: &[Step::new("cargo clippy --workspace --all-targets --all-features --locked -- -D warnings")],
    },
    Stage {
        name: "tests",
        shows: "every test and every documentation example passes",
        steps: &[
            Step::new("cargo test --workspace --all-features --locked --no-run"),
            Step::new("cargo test --workspace --all-features --locked").silence(SILENCE).must_test(),
        ],
    },
    Stage {
        name: "docs",
        shows: "the documentation builds without a warning",
        steps: &[Step::new("cargo doc --workspace --no-deps --all-features --locked")
            .env(&[("RUSTDOCFLAGS", "-D warnings")])],
    },
    Stage {
        name: "bench-smoke",
        shows: "every benchmark runs once",
        steps: &[
            Step::new("cargo bench --package hodei-benches --benches --locked --no-run"),
            Step::new("cargo bench --package hodei-benches --benches --locked -- --test").silence(SILENCE),
        ],
    },
    Stage {
        name: "examples",
        shows: "the first program a reader runs does run",
        steps: &[
            Step::new("cargo build --release --locked --example quickstart"),
            Step::new("cargo run --release --locked --quiet --example quickstart").limit(EXAMPLE_LIMIT),
        ],
    },
];
