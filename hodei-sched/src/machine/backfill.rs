//! Whom a job may overtake: the head that waits for a worker, where the job has ended before the head could begin.

use std::collections::HashMap;

use hodei_core::{Name, Timestamp};

use super::buffer::Buffer;
use super::learned::Learned;
use super::picks::Head;
use super::placement::{Fleet, WorkerId};
use super::session::Session;
use super::sessions::Sessions;
use crate::queue::ClassId;

/// Has the fleet know when the job for which workers are held begins at the latest, where that is known and anybody
/// could overtake it.
pub(super) fn foresee(
    fleet: &mut Fleet,
    buffer: &Buffer,
    heads: &[Head],
    names: &HashMap<WorkerId, Name>,
    sessions: &Sessions,
    learned: &Learned,
    now: Timestamp,
) {
    let others = fleet.held().is_some_and(|(class, _)| is_beside(class, buffer, heads));
    let start = if others { reserved_start(fleet, names, sessions, learned, now) } else { None };
    fleet.expect_start(start);
}

/// Whether anything waits, here or in the store, that is of another class than the one for which workers are held. Where
/// nothing does nobody can overtake it, and when it begins is nobody's question.
fn is_beside(held: ClassId, buffer: &Buffer, heads: &[Head]) -> bool {
    buffer.waiting().any(|(class, ..)| class != held) || heads.iter().any(|head| head.class != held)
}

/// When the job for which workers are held begins at the latest, where all whom it waits for end in the time that they are
/// known to take; nothing where that is not known of somebody.
fn reserved_start(
    fleet: &Fleet,
    names: &HashMap<WorkerId, Name>,
    sessions: &Sessions,
    learned: &Learned,
    now: Timestamp,
) -> Option<Timestamp> {
    let (class, _) = fleet.held()?;
    let mut start = now;
    for worker in fleet.held_workers() {
        let session = names.get(&worker).and_then(|name| sessions.get(name))?;
        start = start.max(free_at(fleet, worker, class, session, learned, now)?);
    }
    Some(start)
}

/// When a worker has room for a class at the latest.
fn free_at(
    fleet: &Fleet,
    worker: WorkerId,
    class: ClassId,
    session: &Session,
    learned: &Learned,
    now: Timestamp,
) -> Option<Timestamp> {
    let mut gone = Vec::new();
    if fleet.would_fit(worker, class, &gone) {
        return Some(now);
    }
    let mut ends: Vec<(Timestamp, ClassId)> = Vec::with_capacity(session.assigned.len());
    for assigned in session.assigned.values() {
        // Who has taken as long as is known of him may end at any moment.
        let end = learned.lasts(&assigned.job.spec).map(|lasts| assigned.since.saturating_add(lasts));
        ends.extend(end.map(|end| (end.max(now), assigned.class)));
    }
    ends.sort_unstable_by_key(|(end, class)| (*end, class.0));
    for (end, of) in ends {
        gone.push(of);
        if fleet.would_fit(worker, class, &gone) {
            return Some(end);
        }
    }
    None
}
