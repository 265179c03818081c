//! What the dispatchers of a node lend each other, as their drivers do it.

use std::future::poll_fn;

use hodei_core::Timestamp;
use hodei_core::store::Claimed;

use crate::machine::Scheduler;
use crate::queue::{Parcel, Seat};

/// Shows the other dispatchers what could be lent to them, or asks them for work.
pub(crate) fn show_surplus(machine: &mut Scheduler, seat: &mut Seat<Claimed>, now: Timestamp) {
    seat.show(machine.surplus());
    if machine.is_hungry(now) && seat.ask(machine.room()) {
        machine.has_asked();
    }
}

/// Answers another dispatcher, or takes in what it lends.
pub(crate) fn take_parcel(
    machine: &mut Scheduler,
    seat: &Seat<Claimed>,
    parcel: Parcel<Claimed>,
    now: Timestamp,
) {
    match parcel {
        Parcel::Asked(by, room) => {
            let back = seat.give(by, machine.lend(room));
            machine.unlend(back, now);
        }
        Parcel::Given(_, jobs) => machine.take_lent(jobs, now),
    }
}

/// Waits for a parcel; for ever, where there is only one dispatcher.
pub(crate) async fn parcel(seat: Option<&Seat<Claimed>>) {
    match seat {
        Some(seat) => poll_fn(|cx| seat.poll_parcel(cx)).await,
        None => std::future::pending().await,
    }
}
