//! Submissions that share a statement: those that come while others are under way.
//!
//! A lone caller waits for nobody. At most [`FLYING`] statements are under way; what comes meanwhile is stored by the next,
//! together.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hodei_core::job::NewJob;
use hodei_core::store::{Committed, Submitted};
use hodei_core::{Error, ErrorKind, JobId, Result};
use tokio::sync::oneshot;

use crate::inner::Inner;

const OP: &str = "store.submit";

/// How many statements are under way at most.
const FLYING: usize = 2;
/// After how many jobs a group takes no further call.
const JOBS: usize = 1_000;

type Reply = Result<Committed<Submitted>>;

/// The calls that wait.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    calls: VecDeque<Call>,
    flying: usize,
}

#[derive(Debug)]
struct Call {
    jobs: Vec<NewJob>,
    reply: oneshot::Sender<Reply>,
}

impl Groups {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the calls that share the next statement: of one tenant, and no id and no key of one in another.
    fn next(&self) -> Vec<Call> {
        let mut waiting = self.waiting();
        let (mut group, mut size) = (Vec::new(), 0);
        let mut ids: HashSet<JobId> = HashSet::new();
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
            ids.extend(call.jobs.iter().map(|job| job.id));
            keys.extend(call.jobs.iter().filter_map(|job| job.unique.clone()));
            group.push(call);
        }
        if group.is_empty() {
            waiting.flying -= 1;
        }
        group
    }
}

impl Inner {
    /// Stores jobs that are plain, with whatever else is to be stored.
    pub(crate) async fn submit_plain(self: &Arc<Self>, jobs: Vec<NewJob>) -> Reply {
        let (reply, answer) = oneshot::channel();
        let takes_off = {
            let mut waiting = self.groups.waiting();
            waiting.calls.push_back(Call { jobs, reply });
            let free = waiting.flying < FLYING;
            waiting.flying += usize::from(free);
            free
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
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    async fn store_group(self: &Arc<Self>, group: Vec<Call>) {
        let all: Vec<&NewJob> = group.iter().flat_map(|call| &call.jobs).collect();
        match self.store_plain(&all).await {
            Ok(stored) => {
                let mut stored = stored.into_iter();
                for call in group {
                    let mut committed = Committed::default();
                    for (reply, change) in stored.by_ref().take(call.jobs.len()) {
                        committed.replies.push(reply);
                        committed.changes.extend(change);
                    }
                    // A caller that is gone needs no answer.
                    drop(call.reply.send(Ok(committed)));
                }
            }
            Err(error) => {
                for call in group {
                    drop(call.reply.send(Err(same(&error))));
                }
            }
        }
    }
}

/// An error for each of several callers.
fn same(error: &Error) -> Error {
    let made = Error::new(error.kind(), error.op()).with("group", error);
    match error.retry_delay() {
        Some(delay) => made.retry_after(delay),
        None => made,
    }
}
