//! What one can do to every server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rustix::process::Signal;

use crate::StartError;
use crate::process::Process;

/// A private server that can be hurt. Each call returns when what it names has happened.
pub trait Server {
    /// Its process.
    #[doc(hidden)]
    fn process(&self) -> &Running;

    /// Where it listens: the same address after each restart.
    fn address(&self) -> SocketAddr {
        self.process().address
    }

    /// The id of its main process, while it runs.
    fn pid(&self) -> Option<i32> {
        self.process().process.pid()
    }

    /// Kills it and all of its descendants with SIGKILL.
    fn kill9(&self) {
        self.process().process.kill();
    }

    /// Stops it in order: clients are cut, what is under way is rolled back, memory is written out.
    fn stop_fast(&self) {
        self.process().process.stop(self.process().fast);
    }

    /// Stops it at once: nothing is written out, and the next start recovers from the log.
    fn stop_immediate(&self) {
        match self.process().immediate {
            Some(signal) => self.process().process.stop(signal),
            None => self.kill9(),
        }
    }

    /// Starts it again with the same port and data, unless it runs.
    ///
    /// # Errors
    ///
    /// [`StartError::Silent`] when it does not answer.
    fn restart(&self) -> Result<(), StartError> {
        self.process().process.run()
    }

    /// Freezes it and all of its descendants: connections stay, and nobody answers.
    fn freeze(&self) {
        self.process().process.signal(Signal::STOP);
    }

    /// Lets it go on.
    fn thaw(&self) {
        self.process().process.signal(Signal::CONT);
    }
}

/// A running server and how it wants to be stopped.
#[derive(Debug)]
pub struct Running {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// The signal that stops it in order.
    pub(crate) fast: Signal,
    /// The signal that stops it at once, if it has one.
    pub(crate) immediate: Option<Signal>,
}

/// How often a start is tried: another program may take a port between its choice and its use.
const STARTS: usize = 3;

/// Starts a server on a port of the loopback that was free a moment ago.
pub(crate) fn on_free_port<T>(
    mut start: impl FnMut(SocketAddr) -> Result<T, StartError>,
) -> Result<T, StartError> {
    let mut tries = 1;
    loop {
        match start(free_address()?) {
            Err(StartError::Silent { .. }) if tries < STARTS => tries += 1,
            answer => return answer,
        }
    }
}

/// An address of the loopback that nobody listens on.
fn free_address() -> Result<SocketAddr, StartError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(StartError::io("find a free port"))
}
