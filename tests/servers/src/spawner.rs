//! The thread that every server descends from.
//!
//! The kernel sends the signal that a child asked for with `PR_SET_PDEATHSIG` when the *thread* that created it ends, and
//! the thread of a test ends long before its process. So one thread, which never ends, creates them all.

use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::{io, thread};

/// A child to create, and where to say what came of it.
type Order = (Command, Sender<io::Result<Child>>);

static SPAWNER: LazyLock<Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = channel::<Order>();
    thread::spawn(move || {
        for (mut command, reply) in inbox {
            // Nobody waits any more: then the child is dropped unseen, and ends with this process.
            let _ = reply.send(command.spawn());
        }
    });
    orders
});

/// Creates a child from the thread that lasts as long as the process.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let (reply, answer) = channel();
    let gone = || io::Error::other("the thread that starts servers is gone");
    SPAWNER.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}
