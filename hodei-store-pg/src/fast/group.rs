//! Submissions that share a statement: those that come while others are under way.
//!
//! A lone caller waits for nobody, and stores by himself. Of others at most [`FLYING`] statements are under way; what comes
//! meanwhile is stored by the next, together. Calls that wait for somebody else's transaction are set aside and tried one by
//! one, so that they keep nobody.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hodei_core::job::NewJob;
use hodei_core::map::JobSet;
use hodei_core::store::{Change, Committed, Submitted};
use hodei_core::{Clock, Error, ErrorKind, JobId, Result, SystemClock};
use tokio::sync::oneshot;

use super::fresh::{is_just_now, is_simple};
use super::submit::Stored;
use crate::detached::Detached;
use crate::error::{NO_LOCK, RETRY_AFTER};
use crate::inner::Inner;

const OP: &str = "store.submit";

/// How many statements are under way at most.
const FLYING: usize = 2;
/// After how many jobs a group takes no further call.
const JOBS: usize = 1_000;
/// How many jobs wait at most; a call beyond them is `Unavailable`.
const WAITING_MAX: usize = 100_000;

type Reply = Result<Committed<Submitted>>;

/// The calls that wait.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    calls: VecDeque<Call>,
    flying: usize,
    /// Whether somebody stores by himself. Nobody waits for him, as nobody knows whether he goes on.
    lone: bool,
    /// Those that were in front of a lock, and whether somebody sees to them.
    aside: VecDeque<Call>,
    seen_to: bool,
    /// How many jobs wait, in both.
    jobs: usize,
    /// The number of the next call.
    next: u64,
    /// The last of all ids that came and were minted just now.
    newest: Option<JobId>,
}

#[derive(Debug)]
struct Call {
    no: u64,
    since: Instant,
    jobs: Vec<NewJob>,
    reply: oneshot::Sender<Reply>,
}

impl Groups {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether a caller may store by himself, since nobody else is about.
    fn go_alone(&self) -> bool {
        let mut waiting = self.waiting();
        let free = waiting.flying == 0 && waiting.jobs == 0;
        free && !std::mem::replace(&mut waiting.lone, true)
    }

    /// Notes jobs that come, and says whether all were made just now, behind all that came before: what is submitted again was
    /// not. Ids that say another time are not noted, since no other would ever follow them.
    fn follow(&self, jobs: &[NewJob]) -> bool {
        let now = SystemClock.now();
        let mut waiting = self.waiting();
        let before = waiting.newest;
        let mut follow = true;
        for id in jobs.iter().map(|job| job.id) {
            let just_now = is_just_now(id, now);
            follow &= just_now && Some(id) > before;
            if just_now {
                waiting.newest = waiting.newest.max(Some(id));
            }
        }
        follow
    }

    /// Takes the calls that share the next statement: of one tenant, and no id and no key of one in another.
    fn next(&self) -> Vec<Call> {
        let mut waiting = self.waiting();
        let (mut group, mut size) = (Vec::new(), 0);
        let mut ids = JobSet::default();
        let mut keys: HashSet<Arc<str>> = HashSet::new();
        while let Some(call) = waiting.calls.front() {
            let first: &[Call] = &group;
            let fits = first.is_empty()
                || (size + call.jobs.len() <= JOBS
                    && call.jobs.first().map(|job| &job.tenant)
                        == first.first().and_then(|call| call.jobs.first()).map(|job| &job.tenant)
                    && call.jobs.iter().all(|job| {
                        !ids.contains(&job.id) && job.unique.as_ref().is_none_or(|key| !keys.contains(key))
                    }));
            if !fits {
                break;
            }
            let Some(call) = waiting.calls.pop_front() else { break };
            size += call.jobs.len();
            waiting.jobs -= call.jobs.len();
            ids.extend(call.jobs.iter().map(|job| job.id));
            keys.extend(call.jobs.iter().filter_map(|job| job.unique.clone()));
            group.push(call);
        }
        if group.is_empty() {
            waiting.flying -= 1;
        }
        group
    }

    /// Takes a call back that no statement has taken yet.
    fn take_back(&self, no: u64) -> bool {
        let mut waiting = self.waiting();
        let Some(n) = waiting.calls.iter().position(|call| call.no == no) else { return false };
        let call = waiting.calls.remove(n);
        waiting.jobs -= call.map_or(0, |call| call.jobs.len());
        true
    }

    /// Sets calls aside, those without keys first: they are the less likely to wait for somebody. Says whether somebody
    /// has to see to them.
    fn set_aside(&self, group: Vec<Call>) -> bool {
        let mut waiting = self.waiting();
        for call in group {
            waiting.jobs += call.jobs.len();
            if call.jobs.iter().all(|job| job.unique.is_none()) {
                waiting.aside.push_front(call);
            } else {
                waiting.aside.push_back(call);
            }
        }
        !std::mem::replace(&mut waiting.seen_to, true)
    }

    /// Sets a call aside again, behind the others.
    fn put_back(&self, call: Call) {
        let mut waiting = self.waiting();
        waiting.jobs += call.jobs.len();
        waiting.aside.push_back(call);
    }

    /// Takes the next call that was set aside.
    fn next_aside(&self) -> Option<Call> {
        let mut waiting = self.waiting();
        let call = waiting.aside.pop_front();
        waiting.jobs -= call.as_ref().map_or(0, |call| call.jobs.len());
        waiting.seen_to = call.is_some();
        call
    }
}

/// The way of a lone caller, which is free again when this goes.
struct Alone(Arc<Inner>);

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.groups.waiting().lone = false;
    }
}

impl Inner {
    /// Stores jobs that are plain: alone where nobody else is about, else with whatever else is to be stored.
    pub(crate) async fn submit_plain(self: &Arc<Self>, jobs: Vec<NewJob>) -> Reply {
        let follow = self.groups.follow(&jobs);
        if !self.groups.go_alone() {
            return self.submit_together(jobs).await;
        }
        let alone = Alone(Arc::clone(self));
        Detached::new(async move {
            let all: Vec<&NewJob> = jobs.iter().collect();
            match alone.0.store_alone(&all, follow).await {
                Err(error) if error.context("sqlstate") == Some(NO_LOCK) => {
                    let inner = Arc::clone(&alone.0);
                    drop(alone);
                    inner.submit_together(jobs).await
                }
                stored => stored.map(|stored| committed(&mut stored.into_iter())),
            }
        })
        .await
    }

    /// Stores what one caller brings: a job that seems to be new as such.
    async fn store_alone(self: &Arc<Self>, jobs: &[&NewJob], follow: bool) -> Result<Stored> {
        if let [job] = jobs
            && follow
            && is_simple(job)
        {
            match self.store_fresh(job).await {
                // It is not new, or something has to make way for it first; nothing has happened.
                Err(error)
                    if error.kind() == ErrorKind::Locked && error.context("sqlstate") != Some(NO_LOCK) => {}
                stored => return stored,
            }
        }
        self.store_plain(jobs).await
    }

    async fn submit_together(self: &Arc<Self>, jobs: Vec<NewJob>) -> Reply {
        let (reply, answer) = oneshot::channel();
        let (no, takes_off) = {
            let mut waiting = self.groups.waiting();
            if waiting.jobs > 0 && waiting.jobs + jobs.len() > WAITING_MAX {
                return Err(busy());
            }
            let no = waiting.next;
            waiting.next += 1;
            waiting.jobs += jobs.len();
            waiting.calls.push_back(Call { no, since: Instant::now(), jobs, reply });
            let free = waiting.flying < FLYING;
            waiting.flying += usize::from(free);
            (no, free)
        };
        if takes_off {
            let inner = Arc::clone(self);
            // A task of its own: a caller that is cancelled must not leave the others waiting.
            tokio::spawn(async move {
                loop {
                    let group = inner.groups.next();
                    if group.is_empty() {
                        return;
                    }
                    inner.store_group(group).await;
                }
            });
        }
        let gone = || Error::new(ErrorKind::Indeterminate, OP).with("task", "ended early");
        let mut answer = answer;
        match tokio::time::timeout(self.config.acquire_timeout, &mut answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(gone())),
            Err(_) if self.groups.take_back(no) => Err(busy()),
            Err(_) => answer.await.unwrap_or_else(|_| Err(gone())),
        }
    }

    async fn store_group(self: &Arc<Self>, group: Vec<Call>) {
        let all: Vec<&NewJob> = group.iter().flat_map(|call| &call.jobs).collect();
        match self.store_plain(&all).await {
            Ok(stored) => answer(group, stored),
            Err(error) if error.context("sqlstate") == Some(NO_LOCK) => {
                if self.groups.set_aside(group) {
                    tokio::spawn(Arc::clone(self).see_to_those_aside());
                }
            }
            Err(error) => {
                for call in group {
                    drop(call.reply.send(Err(same(&error))));
                }
            }
        }
    }

    /// Tries the calls that were set aside, one after the other, each until it took longer than a statement may.
    async fn see_to_those_aside(self: Arc<Self>) {
        while let Some(call) = self.groups.next_aside() {
            let jobs: Vec<&NewJob> = call.jobs.iter().collect();
            match self.store_plain(&jobs).await {
                Ok(stored) => answer(vec![call], stored),
                Err(error) if error.context("sqlstate") == Some(NO_LOCK) => {
                    if call.since.elapsed() < self.config.statement_timeout {
                        self.groups.put_back(call);
                    } else {
                        // It waited as long as a statement may, and nothing of it has happened.
                        drop(call.reply.send(Err(Error::new(ErrorKind::Timeout, OP).source_error(error))));
                    }
                }
                Err(error) => drop(call.reply.send(Err(error))),
            }
        }
    }
}

/// Gives each of several callers what is its own.
fn answer(group: Vec<Call>, stored: Stored) {
    let mut stored = stored.into_iter();
    for call in group {
        let committed = committed(&mut stored.by_ref().take(call.jobs.len()));
        // A caller that is gone needs no answer.
        drop(call.reply.send(Ok(committed)));
    }
}

/// What one caller is told.
fn committed(stored: &mut dyn Iterator<Item = (Submitted, Option<Change>)>) -> Committed<Submitted> {
    let mut committed = Committed::default();
    for (reply, change) in stored {
        committed.replies.push(reply);
        committed.changes.extend(change);
    }
    committed
}

/// The error of a call that was not begun.
fn busy() -> Error {
    Error::new(ErrorKind::Unavailable, OP).with("submissions", "too many wait").retry_after(RETRY_AFTER)
}

/// An error for each of several callers.
fn same(error: &Error) -> Error {
    let made = Error::new(error.kind(), error.op()).with("group", error);
    match error.retry_delay() {
        Some(delay) => made.retry_after(delay),
        None => made,
    }
}

#[cfg(test)]
mod tests {
    use hodei_core::job::JobSpec;

    use super::*;

    /// A job that was minted a number of seconds from now, as its id says.
    fn minted(from_now: i64) -> NewJob {
        let spec = JobSpec::command(["true"]).build().expect("a valid spec");
        let now = SystemClock.now().as_micros() / 1_000;
        let ticket = u64::try_from(now + from_now * 1_000).expect("after 1970") * 4_096;
        let mut job = NewJob::new(spec);
        job.id = JobId::from_parts(ticket, job.id.slot(), 0);
        job
    }

    #[test]
    fn what_comes_again_follows_nothing() {
        let groups = Groups::default();
        let [first, second, third] = [1, 2, 3].map(minted);
        assert!(groups.follow(std::slice::from_ref(&first)) && groups.follow(std::slice::from_ref(&third)));
        for again in [first, second, third] {
            assert!(!groups.follow(&[again]), "it is not behind the last");
        }
        let both = [minted(4), minted(5)];
        assert!(groups.follow(&both) && !groups.follow(&both[1..]));
    }

    #[test]
    fn only_what_was_made_just_now_follows() {
        let groups = Groups::default();
        for at in [-3_600, 3_600] {
            assert!(!groups.follow(&[minted(at)]), "{at} s from now");
        }
        assert!(groups.follow(&[minted(0)]), "another time is not remembered");
    }
}
