//! Waiting for a process while climbing the ladder.

use std::{io, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    EndedBy, Stop,
    ladder::{Blow, Ladder},
};
use crate::sys::{Child, Signal};

/// Waits until the leader has exited, stopping it when its time is over or it is asked to. The leader is left a
/// zombie and its group may have members still.
///
/// # Errors
///
/// When the child can not be waited for or signalled.
pub(super) async fn supervise(
    child: &Child,
    timeout: Option<Duration>,
    grace: Duration,
    mut stop: watch::Receiver<Stop>,
) -> io::Result<EndedBy> {
    let mut ladder = Ladder::new(Instant::now(), timeout, grace);
    let wish = *stop.borrow_and_update();
    deal(child, ladder.on_stop(wish, Instant::now()))?;
    let mut controlled = true;
    loop {
        let due = ladder.poll_timeout();
        let blow = tokio::select! {
            biased;
            exited = child.exited() => {
                exited?;
                return Ok(ladder.ended_by());
            }
            changed = stop.changed(), if controlled => {
                controlled = changed.is_ok();
                let wish = if controlled { *stop.borrow_and_update() } else { Stop::Kill };
                ladder.on_stop(wish, Instant::now())
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => ladder.on_timer(Instant::now()),
        };
        deal(child, blow)?;
    }
}

fn deal(child: &Child, blow: Option<Blow>) -> io::Result<()> {
    match blow {
        None => Ok(()),
        Some(Blow::Terminate) => {
            child.signal_group(Signal::TERM)?;
            child.signal_group(Signal::CONT)
        }
        Some(Blow::Kill) => child.signal_group(Signal::KILL),
    }
}
