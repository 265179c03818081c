//! I14: what is read of a log is what was written, and what is missing is counted.

use std::collections::{BTreeMap, HashMap};

use super::super::entry::{Entry, LogSeen};
use super::super::report::{Invariant, Report};
use super::book::Book;
use crate::id::Name;
use crate::job::{Cause, Epoch};

/// What is told of the whole of a stream.
#[derive(Clone, Copy, PartialEq)]
struct Told {
    kept: u64,
    dropped: u64,
}

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let mut written: BTreeMap<LogSeen, Vec<u8>> = BTreeMap::new();
    // How far readers have come.
    let mut readers: HashMap<(&Name, LogSeen), u64> = HashMap::new();
    let mut told: Vec<(LogSeen, Told, &str)> = Vec::new();
    for entry in book.entries {
        match entry {
            Entry::LogWritten { log, bytes } => written.entry(*log).or_default().extend(bytes),
            Entry::LogRead { reader, log, offset, bytes, next, ended, dropped } => {
                let there = written.get(log).map(Vec::as_slice).unwrap_or_default();
                let reader = readers.entry((reader, *log)).or_default();
                if let Some(text) = read(reader, (*offset, bytes, *next), there, *dropped) {
                    report.add(Invariant::WholeLogs, log.job, of(log, &text));
                }
                if *ended {
                    told.push((*log, Told { kept: *reader, dropped: *dropped }, "a reader at its end"));
                }
            }
            Entry::LogEnded { log, kept, dropped } => {
                told.push((*log, Told { kept: *kept, dropped: *dropped }, "the end of the run"));
            }
            _ => {}
        }
    }
    if written.is_empty() {
        // Nobody noted it.
        return;
    }
    for (log, Told { kept, dropped }, by) in &told {
        let all = written.get(log).map_or(0, |bytes| bytes.len() as u64);
        if kept.checked_add(*dropped) != Some(all) {
            let text =
                format!("{by} tells {kept} bytes kept and {dropped} dropped of {all} that were written");
            report.add(Invariant::WholeLogs, log.job, of(log, &text));
        }
    }
    committed(book, &written, report);
}

/// Holds what a reader was given to what was written so far.
fn read(
    reader: &mut u64,
    (offset, bytes, next): (u64, &[u8], u64),
    written: &[u8],
    dropped: u64,
) -> Option<String> {
    let before = *reader;
    let end = offset.saturating_add(bytes.len() as u64);
    *reader = next.max(before);
    if offset < before || next < end {
        return Some(format!(
            "a reader that had come to {before} was given {offset} to {end}, and told to go on at {next}"
        ));
    }
    let all = written.len() as u64;
    if end > all || next > all {
        return Some(format!("a reader was given {offset} to {end} of {all} bytes that were written"));
    }
    // Where some were dropped, bytes do not stand where they were written.
    let there = usize::try_from(offset).ok().and_then(|from| written.get(from..from + bytes.len()));
    let other = dropped == 0 && there.is_some_and(|there| there != bytes);
    other.then(|| format!("a reader was given other bytes at {offset} than were written"))
}

/// A run that ended well and wrote something said so with its end, in the same transaction.
fn committed(book: &Book<'_>, written: &BTreeMap<LogSeen, Vec<u8>>, report: &mut Report) {
    let Some(survey) = book.last().filter(|survey| survey.held.is_some()) else { return };
    let ended = book.entries[survey.began..survey.ended].iter().filter_map(|entry| match entry {
        Entry::LogEnded { log, .. } => Some(*log),
        _ => None,
    });
    let ended: Vec<LogSeen> = ended.collect();
    let held = survey.held.iter().flatten().filter(|seen| seen.cause == Cause::Succeeded);
    let held: HashMap<_, Epoch> = held.map(|seen| (seen.job, seen.epoch)).collect();
    for log in written.keys().filter(|log| held.get(&log.job) == Some(&log.epoch)) {
        if !ended.contains(log) {
            report.add(Invariant::WholeLogs, log.job, of(log, "the end of the run tells nothing of it"));
        }
    }
}

fn of(log: &LogSeen, text: &str) -> String {
    format!("{:?} of epoch {}: {text}", log.stream, log.epoch)
}
