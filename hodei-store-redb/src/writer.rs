//! The one thread that writes, and the group commit.
//!
//! Whoever wants to write sends a closure. The thread begins a transaction with the first, takes in what has come until
//! nobody is left, commits and syncs once, and only then replies. Nobody waits for company: a lone caller's transaction
//! begins at once and ends at once, and what comes during its sync is the next group.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use hodei_core::{Error, ErrorKind, Result};
use redb::{Durability, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use crate::ahead::Ahead;
use crate::error::{corrupt, failed, guarded};
use crate::inner::Inner;
use crate::memory::Delta;
use crate::stats::Tally;
use crate::sync::lock;
use crate::txn::{Work, count_some};

/// Something to do inside a transaction, and somebody to tell. It may run more than once: what ran in a transaction
/// that was given up runs again in the next.
pub(crate) trait Request: Send {
    /// Runs.
    fn run(&mut self, work: &mut Work<'_, '_>) -> Result<()>;
    /// Tells the caller, after the commit or without one, and returns what is left over.
    fn reply(self: Box<Self>, end: Result<()>) -> Box<dyn Send>;
    /// How many items it carries, for the bounds of a group.
    fn items(&self) -> usize;
    /// Whether it reads what is in memory as of the last commit, and therefore begins a group.
    fn begins(&self) -> bool;
}

struct Call<R, F> {
    run: F,
    out: Option<R>,
    size: Size,
    caller: oneshot::Sender<Result<R>>,
}

impl<R: Send, F: FnMut(&mut Work<'_, '_>) -> Result<R> + Send + 'static> Request for Call<R, F> {
    fn run(&mut self, work: &mut Work<'_, '_>) -> Result<()> {
        self.out = Some((self.run)(work)?);
        Ok(())
    }

    fn reply(self: Box<Self>, end: Result<()>) -> Box<dyn Send> {
        let Self { out, caller, run, .. } = *self;
        let out = end.and_then(|()| out.ok_or_else(|| Error::new(ErrorKind::Bug, "store.reply")));
        // A caller that went away does not want to know.
        drop(caller.send(out));
        Box::new(run)
    }

    fn items(&self) -> usize {
        self.size.items()
    }

    fn begins(&self) -> bool {
        matches!(self.size, Size::Begins(_))
    }
}

/// How much a call carries, and where in a group it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    /// So many items, anywhere.
    Items(usize),
    /// So many items, at the beginning: it reads what is in memory as of the last commit.
    Begins(usize),
}

impl Size {
    fn items(self) -> usize {
        match self {
            Self::Items(items) | Self::Begins(items) => items,
        }
    }
}

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Writer {
    requests: mpsc::Sender<Box<dyn Request>>,
    inner: Arc<Inner>,
}

impl Writer {
    /// Starts the thread, and the one that reads ahead of it; they end with the writer, when everything that was sent
    /// is done.
    pub(crate) fn start(inner: &Arc<Inner>) -> Result<(Self, [JoinHandle<()>; 2])> {
        let (sender, requests) = mpsc::channel(inner.config.waiting_calls);
        let (ahead, reading) = Ahead::start(inner)?;
        let (own, inner) = (Arc::clone(inner), Arc::clone(inner));
        let writing = crate::sync::thread("hodei-redb-write", move || serve(&own, requests, ahead))?;
        Ok((Self { requests: sender, inner }, [writing, reading]))
    }

    /// Runs something in a transaction and waits for its commit.
    pub(crate) async fn write<R, F>(&self, op: &'static str, size: Size, run: F) -> Result<R>
    where
        R: Send + 'static,
        F: FnMut(&mut Work<'_, '_>) -> Result<R> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let gone = || Error::new(ErrorKind::Unavailable, op);
        self.requests.send(Box::new(Call { run, out: None, size, caller })).await.map_err(|_| gone())?;
        self.inner.gone.clear_away(size.items());
        answer.await.map_err(|_| Error::new(ErrorKind::Indeterminate, op))?
    }
}

/// A request in a group, and what became of it.
struct Seat {
    request: Box<dyn Request>,
    refused: Option<Error>,
}

/// The requests that share a transaction, and where more may come from.
struct Group<'r> {
    seats: Vec<Seat>,
    items: usize,
    requests: &'r mut mpsc::Receiver<Box<dyn Request>>,
    /// A request that begins the next group.
    next: Option<Box<dyn Request>>,
    max_calls: usize,
    max_items: usize,
}

impl Group<'_> {
    fn board(&mut self, request: Box<dyn Request>) {
        self.items = request.items().saturating_add(self.items);
        self.seats.push(Seat { request, refused: None });
    }

    /// Returns a seat by its number; behind the last one, of whoever has come meanwhile, as long as there is room.
    fn seat(&mut self, number: usize) -> Option<&mut Seat> {
        let full = self.seats.len() >= self.max_calls || self.items >= self.max_items;
        if number == self.seats.len() && !full && self.next.is_none() {
            let request = self.requests.try_recv().ok()?;
            if request.begins() {
                self.next = Some(request);
            } else {
                self.board(request);
            }
        }
        self.seats.get_mut(number)
    }
}

/// How often the thread looks for the next request before it sleeps: a caller that was just answered often has one, and
/// waking a thread takes longer than it does to send it.
const LOOKS: u32 = 128;

/// How many jobs of an older schema are counted in one go at most: whoever comes meanwhile waits for that.
const COUNTED_MAX: usize = 1_000;

/// After how many groups of callers who leave the thread no time some jobs are counted all the same.
const GROUPS_BETWEEN: u32 = 16;

/// The counting of a file of an older schema, which goes on while nobody calls, and now and then between those who do.
struct Counting {
    /// What became of the last of its requests.
    last: Option<oneshot::Receiver<Result<bool>>>,
    /// Whether there may be more to count. After an error it is left to the next opening, and to whoever asks for what is
    /// to be counted.
    more: bool,
    /// How many groups there were since the last.
    groups: u32,
}

impl Counting {
    fn of(inner: &Inner) -> Self {
        Self { last: None, more: lock(&inner.committed).index.counting.is_some(), groups: 0 }
    }

    /// Counts some when it is long since the last.
    fn in_turn(&mut self, inner: &Inner) -> Option<Box<dyn Request>> {
        self.groups = self.groups.saturating_add(1);
        if self.groups > GROUPS_BETWEEN { self.some(inner) } else { None }
    }

    /// Counts some, unless all is counted.
    fn some(&mut self, inner: &Inner) -> Option<Box<dyn Request>> {
        if let Some(mut last) = self.last.take() {
            self.more = matches!(last.try_recv(), Ok(Ok(true)));
        }
        if !self.more {
            return None;
        }
        self.groups = 0;
        let most = inner.config.migrate_jobs.min(COUNTED_MAX);
        let (caller, answer) = oneshot::channel();
        self.last = Some(answer);
        let run = move |work: &mut Work<'_, '_>| count_some(work, most);
        Some(Box::new(Call { run, out: None, size: Size::Begins(usize::MAX), caller }))
    }
}

/// Waits for a request; nothing when every sender is gone.
fn receive(
    inner: &Inner,
    requests: &mut mpsc::Receiver<Box<dyn Request>>,
    ahead: &mut Ahead,
    counting: &mut Counting,
) -> Option<Box<dyn Request>> {
    let mut looks = 0;
    while looks < LOOKS {
        match requests.try_recv() {
            Ok(request) => return Some(request),
            Err(mpsc::error::TryRecvError::Disconnected) => return None,
            Err(mpsc::error::TryRecvError::Empty) if ahead.read_some(inner) => {}
            Err(mpsc::error::TryRecvError::Empty) => {
                // Whoever wants the processor gets it.
                std::thread::yield_now();
                looks += 1;
            }
        }
    }
    // Nobody comes who would.
    inner.gone.clear_away(usize::MAX);
    counting.some(inner).or_else(|| requests.blocking_recv())
}

/// Runs until every sender is gone.
fn serve(inner: &Arc<Inner>, mut requests: mpsc::Receiver<Box<dyn Request>>, mut ahead: Ahead) {
    let (mut next, mut counting) = (None, Counting::of(inner));
    while let Some(first) = counting
        .in_turn(inner)
        .or_else(|| next.take())
        .or_else(|| receive(inner, &mut requests, &mut ahead, &mut counting))
    {
        let mut group = Group {
            seats: Vec::new(),
            items: 0,
            requests: &mut requests,
            next: None,
            max_calls: inner.config.group_calls,
            max_items: inner.config.group_items,
        };
        group.board(first);
        let end = run_group(inner, &mut group, &mut ahead);
        next = group.next.take().or(next);
        let answer = |seat: Seat| {
            let own = match (seat.refused, &end) {
                (Some(error), _) => Err(error),
                (None, Ok(_)) => Ok(()),
                (None, Err((kind, text))) => Err(Error::new(*kind, "store.commit").with("cause", text)),
            };
            let items = seat.request.items();
            (items, seat.request.reply(own))
        };
        let left: Vec<_> = group.seats.into_iter().map(answer).collect();
        // Everybody is on his way by now.
        inner.gone.leave(left.into_iter());
        if let Ok(Some(delta)) = end {
            let remembered = guarded("store.write", || {
                inner.remember(*delta);
                Ok(())
            });
            if remembered.is_err() {
                inner.give_up();
            }
        }
    }
}

/// What a whole group is told of a commit that failed.
type Failed = (ErrorKind, String);

/// Runs a group until it is committed, and returns what is still to be remembered of it.
fn run_group(inner: &Inner, group: &mut Group<'_>, ahead: &mut Ahead) -> Result<Option<Box<Delta>>, Failed> {
    if inner.stale.load(Ordering::Acquire) {
        rebuild(inner).map_err(|error| told(&error))?;
    }
    loop {
        match guarded("store.write", || attempt(inner, group, ahead)) {
            Ok(Attempt::Again) => {}
            Ok(Attempt::Done(mut delta, tally)) => {
                inner.stats.committed(tally);
                let ring = delta.ring;
                let committed = std::mem::take(&mut delta.committed);
                let taken_over = guarded("store.write", || inner.take_over(&delta));
                // Before anybody is answered, and before the next commit: this is the only thread that commits.
                inner.feeds.tell(&committed);
                if ring {
                    inner.bell.ring();
                }
                if let Err(error) = taken_over {
                    // It is committed, and nobody here can know it: the index is read anew.
                    inner.give_up();
                    return Err((ErrorKind::Indeterminate, error.to_string()));
                }
                return Ok(Some(delta));
            }
            Ok(Attempt::Nothing(delta)) => {
                // Where a pruning stopped is remembered, although it removed nothing.
                lock(&inner.committed).index.apply(&delta);
                return Ok(Some(delta));
            }
            Err(error) => {
                inner.give_up();
                return Err(told(&error));
            }
        }
    }
}

fn told(error: &Error) -> Failed {
    (error.kind(), error.to_string())
}

/// Drops the index and reads it anew.
fn rebuild(inner: &Inner) -> Result<()> {
    guarded("store.rebuild", || inner.rebuild())?;
    inner.stale.store(false, Ordering::Release);
    Ok(())
}

enum Attempt {
    Done(Box<Delta>, Tally),
    Nothing(Box<Delta>),
    Again,
}

/// Runs the group in one transaction, and with it whoever comes while it runs. A request that fails after it wrote
/// something takes the transaction with it: the others run again without it.
fn attempt(inner: &Inner, group: &mut Group<'_>, ahead: &mut Ahead) -> Result<Attempt> {
    let mut txn = inner.db.begin_write().map_err(failed("store.begin"))?;
    txn.set_durability(Durability::Immediate).map_err(failed("store.begin"))?;
    let context = inner.context();
    let mut work = Work::new(&txn, &context);
    let mut number = 0;
    while let Some(seat) = group.seat(number) {
        number += 1;
        if seat.refused.is_some() {
            continue;
        }
        work.tick()?;
        let before = work.mark();
        let request = &mut seat.request;
        let Err(error) = guarded("store.write", || request.run(&mut work).and_then(|()| work.write_out()))
        else {
            continue;
        };
        let spoilt = work.mark() != before || error.kind() == ErrorKind::Corrupt;
        seat.refused = Some(error);
        if spoilt {
            drop(work);
            give_up(txn);
            lock(&inner.recent).clear();
            return Ok(Attempt::Again);
        }
    }
    if work.tally.written == 0 {
        inner.stats.read(work.tally.read);
        let delta = std::mem::take(&mut work.delta);
        drop(work);
        give_up(txn);
        return Ok(Attempt::Nothing(Box::new(delta)));
    }
    work.flush()?;
    let (delta, tally) = (std::mem::take(&mut work.delta), work.tally);
    drop(work);
    ahead.begin(&delta);
    commit(txn)?;
    Ok(Attempt::Done(Box::new(delta), tally))
}

fn give_up(txn: WriteTransaction) {
    // Nothing was written: there is nothing to tell of a transaction that could not even be given up.
    drop(guarded("store.abort", || txn.abort().map_err(failed("store.abort"))));
}

fn commit(txn: WriteTransaction) -> Result<()> {
    txn.commit().map_err(|error| match error {
        redb::CommitError::TransactionPoisoned => corrupt("store.commit", "a spoilt transaction"),
        // The sync may have failed after the bytes had arrived.
        error => Error::new(ErrorKind::Indeterminate, "store.commit").source_error(error),
    })
}
