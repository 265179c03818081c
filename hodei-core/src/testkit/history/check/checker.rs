//! All checks, one after the other.

use super::super::log::History;
use super::super::report::Report;
use super::book::Book;
use super::{
    answers, cancel, duties, limits, logs, order, parents, path, rates, reads, runs, secrets, stream,
    submission, tenants, totals,
};

/// How far the guarantees that a deployment may relax are relaxed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// How many jobs a claim may overtake in its lane. With several dispatchers that skip each other's locked rows,
    /// their number times the size of a batch; else 0.
    pub overtaken: u64,
}

/// Holds a history to the guarantees, with nothing relaxed.
///
/// The history must begin with an empty store that records all changes. Whatever needs the order across jobs is
/// checked against the last survey, and not at all where there is none or where changes were pruned before it.
pub fn check(history: &History) -> Report {
    check_within(history, Bounds::default())
}

/// Holds a history to the guarantees within bounds.
pub fn check_within(history: &History, bounds: Bounds) -> Report {
    let book = Book::of(history.entries());
    let mut report = Report { figures: book.figures(), ..Report::default() };
    submission::check(&book, &mut report);
    path::check(&book, &mut report);
    answers::check(&book, &mut report);
    duties::check(&book, &mut report);
    runs::check(&book, &mut report);
    parents::check(&book, &mut report);
    cancel::check(&book, &mut report);
    limits::check(&book, &mut report);
    rates::check(&book, &mut report);
    order::check(&book, bounds.overtaken, &mut report);
    stream::check(&book, &mut report);
    logs::check(&book, &mut report);
    tenants::check(&book, &mut report);
    secrets::check(&book, &mut report);
    reads::check(&book, &mut report);
    totals::check(&book, &mut report);
    report.violations.sort_by_key(|violation| violation.invariant);
    report
}
