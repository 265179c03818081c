//! Figures of HyperQueue, which is a program of its own and does not run inside this one: constants, each with where it comes from.
//!
//! HyperQueue's scheduler is the nearest relative of ours: tasks are classed by what they ask for, and priority decides over placement
//! too. What it says of itself is in its README; what was measured is version 0.26 as released, on a virtual machine of two
//! cores, `hq submit --array 1-10000 -- true`, so each of its tasks is a process, and `zero worker` its own mode in which none is
//! started. Ours are in the groups above and below; they start nothing either.

use hodei_benches::report::{Report, Unit};

/// A figure of somebody else.
#[derive(Clone, Copy, Debug)]
struct Figure {
    what: &'static str,
    value: f64,
    unit: Unit,
    from: &'static str,
}

const README: &str = "its README";
const MEASURED: &str = "measured, 0.26";

/// What a task costs its server.
const COSTS: [Figure; 3] = [
    Figure { what: "overhead of a task, at most", value: 100.0, unit: Unit::Micros, from: README },
    Figure { what: "CPU of the server for a task, from", value: 4.0, unit: Unit::Micros, from: MEASURED },
    Figure { what: "CPU of the server for a task, to", value: 9.0, unit: Unit::Micros, from: MEASURED },
];

/// How soon it begins.
const STARTS: [Figure; 1] = [Figure {
    what: "the tick that a decision waits for, at most",
    value: 20_000.0,
    unit: Unit::Micros,
    from: MEASURED,
}];

/// How fast it is.
const RATES: [Figure; 5] = [
    Figure {
        what: "tasks that run `true`, a worker of 2 CPUs",
        value: 904.0,
        unit: Unit::PerSecond,
        from: MEASURED,
    },
    Figure {
        what: "tasks that run `true`, a worker of 8 CPUs",
        value: 1_040.0,
        unit: Unit::PerSecond,
        from: MEASURED,
    },
    Figure { what: "tasks of a zero worker of 2 CPUs", value: 923.0, unit: Unit::PerSecond, from: MEASURED },
    Figure {
        what: "tasks of a zero worker of 16 CPUs",
        value: 1_269.0,
        unit: Unit::PerSecond,
        from: MEASURED,
    },
    Figure {
        what: "tasks of a zero worker of 128 CPUs",
        value: 3_800.0,
        unit: Unit::PerSecond,
        from: MEASURED,
    },
];

/// Shows what a task costs there, beside what a decision costs here.
pub(crate) fn costs(report: &Report) {
    show(report, &COSTS);
}

/// Shows what a task waits for there, beside how soon one begins here.
pub(crate) fn starts(report: &Report) {
    show(report, &STARTS);
}

/// Shows how fast tasks are dispatched there, beside how fast they are here.
pub(crate) fn rates(report: &Report) {
    show(report, &RATES);
}

fn show(report: &Report, figures: &[Figure]) {
    for Figure { what, value, unit, from } in figures {
        report.show(&format!("  HyperQueue ({from}): {what}"), *value, *unit);
    }
}
