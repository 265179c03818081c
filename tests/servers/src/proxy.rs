//! A TCP proxy that breaks connections on purpose.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::StartError;

/// How many bytes are passed on at once.
const CHUNK: usize = 64 * 1024;

/// A proxy in front of a server: it holds what passes, cuts it, or cuts it before a certain answer.
///
/// ```text
///   client ──▶ Proxy ──▶ server        hold():         bytes wait in both directions, connections stand (a black hole)
///     ◀── answers ◀────                cut():          every connection ends now
///                                      cut_before(b):  the answer that holds b is swallowed and its connection cut
///                                      cut_after(n):   the same after so many bytes of answers
/// ```
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    /// Locked for as long as it takes to look; never across reading or writing.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Where connections go instead of where they went first.
    redirected: Option<SocketAddr>,
    held: bool,
    refusing: bool,
    closed: bool,
    delay: Duration,
    needle: Option<Vec<u8>>,
    /// How many bytes of answers still pass before the connection is cut that carries the next.
    answers_left: Option<u64>,
    cuts: usize,
    passed: u64,
    /// What is open, by the number of the link.
    links: HashMap<u64, (TcpStream, TcpStream)>,
    linked: u64,
}

impl Proxy {
    /// Starts a proxy in front of `target`.
    ///
    /// # Errors
    ///
    /// [`StartError::Io`] when it cannot listen.
    pub fn start(target: SocketAddr) -> Result<Self, StartError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(StartError::io("listen"))?;
        let address = listener.local_addr().map_err(StartError::io("listen"))?;
        let shared = Arc::new(Shared { target, state: Mutex::default(), changed: Condvar::new() });
        let taking = Arc::clone(&shared);
        thread::spawn(move || taking.take(&listener));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nothing pass until [`Self::release`]: connections stand and are still made, but all bytes wait.
    pub fn hold(&self) {
        self.change(|state| state.held = true);
    }

    /// Lets pass what was held, and all that comes.
    pub fn release(&self) {
        self.change(|state| state.held = false);
    }

    /// Cuts every connection that there is.
    pub fn cut(&self) {
        self.change(State::cut);
    }

    /// Cuts every connection, and each new one at once, until [`Self::admit`].
    pub fn refuse(&self) {
        self.change(|state| {
            state.refusing = true;
            state.cut();
        });
    }

    /// Takes connections again.
    pub fn admit(&self) {
        self.change(|state| state.refusing = false);
    }

    /// Cuts every connection, and has each new one go to another server.
    pub fn redirect(&self, target: SocketAddr) {
        self.change(|state| {
            state.redirected = Some(target);
            state.cut();
        });
    }

    /// Delays every chunk of bytes, in either direction.
    pub fn delay(&self, by: Duration) {
        self.change(|state| state.delay = by);
    }

    /// Cuts the connection on which the server next answers with something that holds `needle`, before a byte of that
    /// chunk has passed; once.
    ///
    /// PostgreSQL ends a committed transaction with the answer `b"COMMIT\0"`: cut before that, and the client does not know.
    pub fn cut_before(&self, needle: &[u8]) {
        self.change(|state| state.needle = Some(needle.to_vec()));
    }

    /// Cuts the connection on which the server answers once `bytes` bytes of answers have passed on all, before that chunk
    /// has passed; once.
    pub fn cut_after(&self, bytes: u64) {
        self.change(|state| state.answers_left = Some(bytes));
    }

    /// How many connections [`Self::cut_before`] and [`Self::cut_after`] have cut.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.shared.lock().cuts
    }

    /// How many bytes have passed, in both directions.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.shared.lock().passed
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| {
            state.closed = true;
            state.cut();
        });
        // Wakes the thread that takes connections, so that it sees the end.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn open(&mut self, client: TcpStream, server: TcpStream) -> u64 {
        self.linked += 1;
        self.links.insert(self.linked, (client, server));
        self.linked
    }

    fn cut(&mut self) {
        for (_, (client, server)) in self.links.drain() {
            close(&client, &server);
        }
    }

    /// Whether the connection is to be cut instead of passing `bytes` of an answer on.
    fn cuts_at(&mut self, bytes: &[u8], tail: &mut Vec<u8>) -> bool {
        if self.answers(bytes, tail) {
            self.needle = None;
            return true;
        }
        let Some(left) = self.answers_left.take() else { return false };
        self.answers_left = left.checked_sub(bytes.len() as u64);
        self.answers_left.is_none()
    }

    /// Whether the answer that is looked for ends in `bytes`.
    fn answers(&self, bytes: &[u8], tail: &mut Vec<u8>) -> bool {
        let Some(needle) = &self.needle else {
            tail.clear();
            return false;
        };
        tail.extend_from_slice(bytes);
        let found = tail.windows(needle.len()).any(|window| window == needle);
        let kept = needle.len().saturating_sub(1).min(tail.len());
        tail.drain(..tail.len() - kept);
        found
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Way {
    Up,
    Down,
}

impl Shared {
    fn take(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let state = self.lock();
            if state.closed {
                return;
            }
            let refusing = state.refusing;
            drop(state);
            if let (Ok(client), false) = (client, refusing) {
                // A server that is not there is a client that is cut.
                let _ = self.link(client);
            }
        }
    }

    fn link(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let redirected = self.lock().redirected;
        let server = TcpStream::connect(redirected.unwrap_or(self.target))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let links = (client.try_clone()?, server.try_clone()?);
        let mut state = self.lock();
        if state.redirected != redirected {
            return Ok(());
        }
        let number = state.open(links.0, links.1);
        drop(state);
        let up = (client.try_clone()?, server.try_clone()?, Way::Up);
        for (from, to, way) in [up, (server, client, Way::Down)] {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                // Either side may go at any time: that is the end of the link, not an error.
                let _ = shared.pump(&from, &to, way);
                close(&from, &to);
                shared.lock().links.remove(&number);
            });
        }
        Ok(())
    }

    /// Passes bytes on until one side ends or the link is cut.
    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, way: Way) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut tail = Vec::new();
        loop {
            let length = from.read(&mut chunk)?;
            if length == 0 || !self.may_pass(&chunk[..length], &mut tail, way) {
                return Ok(());
            }
            to.write_all(&chunk[..length])?;
        }
    }

    /// Waits until bytes may pass; whether they may at all. `tail` is the end of what passed before, in which an answer may
    /// have begun.
    fn may_pass(&self, bytes: &[u8], tail: &mut Vec<u8>, way: Way) -> bool {
        let delay = self.lock().delay;
        if !delay.is_zero() {
            pause(delay);
        }
        let waiting = self.changed.wait_while(self.lock(), |state| state.held && !state.closed);
        let mut state = waiting.unwrap_or_else(PoisonError::into_inner);
        if way == Way::Down && state.cuts_at(bytes, tail) {
            state.cuts += 1;
            return false;
        }
        state.passed += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        !state.closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close(one: &TcpStream, other: &TcpStream) {
    // One that is closed already stays closed.
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

/// Waits, whatever wakes the thread meanwhile.
fn pause(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
