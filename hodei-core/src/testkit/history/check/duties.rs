//! I5 and I6 of owners and terms: each life and each taking has a higher number, and the old ones act no more.

use std::collections::{HashMap, HashSet};

use super::super::call::{Call, Reply};
use super::super::report::{Invariant, Report};
use super::book::{Book, Moment, Span};
use crate::id::{Name, OwnerId};
use crate::store::Fired;

/// What is known of owners and duties at a moment of the history.
#[derive(Default)]
struct Roll<'h> {
    /// The highest life of each owner that was told.
    lives: HashMap<&'h OwnerId, u64>,
    /// The first life of each owner that may not be over.
    alive: HashMap<&'h OwnerId, u64>,
    /// The highest term of each duty that was told.
    terms: HashMap<&'h Name, u64>,
    given: HashSet<(&'h Name, u64)>,
}

pub(super) fn check(book: &Book<'_>, report: &mut Report) {
    let mut roll = Roll::default();
    let mut floors = vec![0; book.spans.len()];
    for (_, moment) in book.moments() {
        match moment {
            Moment::Begun(n) => floors[n] = roll.floor(book.spans[n].call),
            Moment::Ended(n) => roll.answered(&book.spans[n], floors[n], report),
            Moment::Surveyed(_) | Moment::Acknowledged(_) | Moment::Restarted => {}
        }
    }
}

impl<'h> Roll<'h> {
    /// Returns the number that a call begun now is measured by.
    fn floor(&self, call: &Call) -> u64 {
        let found = match call {
            Call::Register { owner } => self.lives.get(owner),
            Call::Exchange { owner, .. } => self.alive.get(&owner.owner),
            Call::TakeTerm { duty, .. }
            | Call::KeepTerm { duty, .. }
            | Call::Reap { duty, .. }
            | Call::Fire { duty, .. }
            | Call::Prune { duty, .. } => self.terms.get(duty),
            _ => None,
        };
        found.copied().unwrap_or(0)
    }

    fn answered(&mut self, span: &Span<'h>, floor: u64, report: &mut Report) {
        match (span.call, span.reply()) {
            (Call::Register { owner }, Some(Reply::Registered { lease })) => {
                let life = lease.incarnation;
                let fresh = self.given.insert((owner.name(), life));
                if life <= floor || !fresh {
                    let text = format!("owner {owner} was registered as {life} when {floor} had been told");
                    report.add(Invariant::EpochMonotone, None, text);
                }
                raise(&mut self.lives, owner, life);
                raise(&mut self.alive, owner, life);
            }
            (Call::Retire { owner }, Some(_)) => raise(&mut self.alive, &owner.owner, owner.incarnation + 1),
            (Call::TakeTerm { duty, .. }, Some(Reply::Term { number: Some(number) })) => {
                if *number <= floor || self.terms.get(duty) == Some(number) {
                    let text = format!("term {number} of {duty} was given when {floor} had been told");
                    report.add(Invariant::EpochMonotone, None, text);
                }
                raise(&mut self.terms, duty, *number);
            }
            (call, Some(reply)) => acts(call, reply, floor, report),
            (_, None) => {}
        }
    }
}

/// Whoever acts under a number below the floor is fenced off.
fn acts(call: &Call, reply: &Reply, floor: u64, report: &mut Report) {
    let (who, number, acted) = match (call, reply) {
        (Call::Exchange { owner, .. }, Reply::Exchanged { claimed, .. }) => {
            (format!("owner {}", owner.owner), owner.incarnation, !claimed.is_empty())
        }
        (Call::KeepTerm { duty, term }, Reply::Term { number }) => {
            (format!("the term of {duty}"), *term, number.is_some())
        }
        (Call::Reap { duty, term, .. }, Reply::Reaped { term_lost, .. })
        | (Call::Prune { duty, term, .. }, Reply::Pruned { term_lost, .. }) => {
            (format!("the term of {duty}"), *term, !term_lost)
        }
        (Call::Fire { duty, term, .. }, Reply::Fired { fired }) => {
            (format!("the term of {duty}"), *term, matches!(fired, Fired::New(_)))
        }
        _ => return,
    };
    if acted && number < floor {
        let text = format!("{who} acted as {number} when only {floor} and later were left");
        report.add(Invariant::Fencing, None, text);
    }
}

fn raise<K: Eq + std::hash::Hash>(numbers: &mut HashMap<K, u64>, key: K, to: u64) {
    let number = numbers.entry(key).or_default();
    *number = to.max(*number);
}
