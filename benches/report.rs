//! Figures as a table: each with what it is measured against, and its goal where it has one.

use std::fmt;
use std::io::{self, Write as _};

/// In what a figure is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A rate.
    PerSecond,
    /// A time.
    Nanos,
    /// A time.
    Micros,
    /// A time.
    Millis,
    /// A ratio.
    Times,
    /// A share.
    Percent,
    /// Memory.
    Mib,
    /// A size or a count.
    Plain,
}

/// A value in its unit, as the tables show it.
#[derive(Clone, Copy, Debug)]
struct Shown(f64, Unit);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, unit) = *self;
        let digits = if value.abs() < 10.0 { 2 } else { usize::from(value.abs() < 100.0) };
        let (value, name) = match unit {
            Unit::PerSecond if value >= 1e6 => return write!(f, "{:.2} M/s", value / 1e6),
            Unit::PerSecond if value >= 1e4 => return write!(f, "{:.1} k/s", value / 1e3),
            Unit::PerSecond => return write!(f, "{value:.0} /s"),
            Unit::Percent if value < 0.1 => return write!(f, "{:.1} %", value * 100.0),
            Unit::Percent => return write!(f, "{:.0} %", value * 100.0),
            Unit::Nanos => (value, " ns"),
            Unit::Micros => (value, " µs"),
            Unit::Millis => (value, " ms"),
            Unit::Times => (value, " x"),
            Unit::Mib => (value, " MiB"),
            Unit::Plain => (value, ""),
        };
        write!(f, "{value:.digits$}{name}")
    }
}

/// What a figure ought to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
}

impl Goal {
    /// Says whether a value reaches it.
    #[must_use]
    pub fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }
}

/// Returns the value that so many percent of several do not exceed; nothing of none.
pub fn percentile<T: Copy + Ord>(values: &mut [T], percent: usize) -> Option<T> {
    values.sort_unstable();
    let at = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(at).copied()
}

/// Returns the middle of several figures, the higher one of two; nothing is not a number.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints figures as they are measured, and counts the goals.
#[derive(Debug, Default)]
pub struct Report {
    met: usize,
    missed: Vec<String>,
}

impl Report {
    /// Begins with what is measured, and how.
    #[must_use]
    pub fn new(about: &str) -> Self {
        say(about);
        Self::default()
    }

    /// Begins a group of figures.
    pub fn group(&self, title: &str) {
        say(&format!("\n{title}"));
    }

    /// Says what the figures above do not.
    pub fn note(&self, text: &str) {
        say(&format!("  {text}"));
    }

    /// Prints a figure that others are measured against.
    pub fn show(&self, what: &str, value: f64, unit: Unit) {
        say(&format!("  {what:<64}{:>12}", Shown(value, unit).to_string()));
    }

    /// Prints a figure with its goal, and whether it is met.
    pub fn judge(&mut self, what: &str, value: f64, unit: Unit, goal: Goal) {
        let (sign, limit) = match goal {
            Goal::AtLeast(limit) => (">=", limit),
            Goal::AtMost(limit) => ("<=", limit),
        };
        let verdict = if goal.met(value) { "met" } else { "MISSED" };
        let (shown, limit) = (Shown(value, unit).to_string(), Shown(limit, unit).to_string());
        say(&format!("  {what:<64}{shown:>12}  {sign} {limit:<10}{verdict}"));
        if goal.met(value) {
            self.met += 1;
        } else {
            self.missed.push(format!("{what}: {shown}, {sign} {limit}"));
        }
    }

    /// Prints a figure of several rounds: each, and the median with its goal.
    pub fn judge_rounds(&mut self, what: &str, rounds: &[f64], unit: Unit, goal: Goal) {
        self.judge(&format!("{what}, median"), median(rounds), unit, goal);
        self.rounds(rounds, unit);
    }

    /// Prints a figure of several rounds that others are measured against: each, and the median.
    pub fn show_rounds(&self, what: &str, rounds: &[f64], unit: Unit) {
        self.show(&format!("{what}, median"), median(rounds), unit);
        self.rounds(rounds, unit);
    }

    fn rounds(&self, rounds: &[f64], unit: Unit) {
        let each: Vec<String> = rounds.iter().map(|value| Shown(*value, unit).to_string()).collect();
        say(&format!("    by round: {}", each.join(", ")));
    }

    /// Ends with what was missed.
    pub fn end(self) {
        let goals = self.met + self.missed.len();
        say(&format!("\n{} of {goals} goals met", self.met));
        for missed in self.missed {
            say(&format!("  MISSED {missed}"));
        }
    }
}

/// Prints a line at once, so that a long run can be watched. Whoever closes our output wants no more of it.
pub fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
