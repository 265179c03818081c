//! Telling the sinks what this process committed, in the order of the change log.
//!
//! Verbs run side by side on several connections, so replies may come in another order than the log has. A verb that
//! began after a reply stands in the log behind what the reply told (see `hodei.pos`): so whatever stands no further back
//! than the last reply before the oldest verb under way began is complete, and is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hodei_core::store::{Change, ChangeSink, Feed, Feeds};
use tokio::sync::Notify;

/// How long a reply waits at most for verbs that began before it, in steps: 1 s, which a verb takes that is slow and not one
/// that hangs. After that it is told out of its order, which shows as a gap in the versions of a job, if at all. A process
/// that stood still has lost one step, not all of them: the other replies were there before it went on.
const STEP: Duration = Duration::from_millis(100);
const STEPS: u32 = 10;

/// Where changes stand in the log.
pub(crate) type At = (i64, i64);

/// Changes that stand together in the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) at: At,
    pub(crate) changes: Vec<Change>,
}

/// Tells the sinks.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    feeds: Feeds,
    state: Mutex<State>,
    /// One call of the sinks after the other.
    turn: Mutex<()>,
    told: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The highest place that a reply named.
    seen: i64,
    /// The verbs under way: what was seen when they began.
    running: BTreeMap<u64, i64>,
    next: u64,
    waiting: BTreeMap<At, Vec<Change>>,
}

impl State {
    /// Up to where nothing can come any more.
    fn complete(&self) -> i64 {
        self.running.values().copied().min().unwrap_or(i64::MAX)
    }

    /// Waits no more for the verbs that held up what stands at a place: whoever comes after would lose his patience with
    /// them as well.
    fn disregard(&mut self, place: i64) {
        self.running.retain(|_, seen| *seen >= place);
    }
}

/// A verb under way.
#[derive(Debug)]
pub(crate) struct Ticket {
    teller: Arc<Teller>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.teller.state().running.remove(&self.number);
        self.teller.flush(None);
    }
}

impl Teller {
    /// Registers a sink.
    pub(crate) fn feed(&self, sink: Arc<dyn ChangeSink>) -> Feed {
        self.feeds.register(sink)
    }

    /// Says whether there is anybody to tell.
    pub(crate) fn is_heard(&self) -> bool {
        !self.feeds.is_empty()
    }

    /// Tells what others have committed.
    pub(crate) fn tell(&self, changes: &[Change]) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.feeds.tell(changes);
        drop(turn);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a verb, before it asks the server for anything.
    pub(crate) fn begin(self: &Arc<Self>) -> Ticket {
        let mut state = self.state();
        let (number, seen) = (state.next, state.seen);
        state.next += 1;
        state.running.insert(number, seen);
        Ticket { teller: Arc::clone(self), number }
    }

    /// Tells what is complete, and what stands no further than `force`.
    fn flush(&self, force: Option<At>) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let ready: Vec<Change> = {
            let mut state = self.state();
            let complete = state.complete();
            let mut ready = Vec::new();
            while let Some(first) = state.waiting.first_entry() {
                if first.key().0 > complete && force.is_none_or(|force| *first.key() > force) {
                    break;
                }
                ready.extend(first.remove());
            }
            ready
        };
        if !ready.is_empty() {
            self.feeds.tell(&ready);
            self.told.notify_waiters();
        }
        drop(turn);
    }
}

impl Ticket {
    /// Ends a verb that committed, and returns once the sinks were told of it.
    pub(crate) async fn committed(self, segments: &[Segment]) {
        let teller = Arc::clone(&self.teller);
        let last = segments.iter().map(|segment| segment.at).max();
        let Some(last) = last else { return };
        {
            let mut state = teller.state();
            state.seen = state.seen.max(last.0);
            if teller.feeds.is_empty() {
                state.waiting.clear();
            } else {
                let told = segments.iter().filter(|segment| !segment.changes.is_empty());
                state.waiting.extend(told.map(|segment| (segment.at, segment.changes.clone())));
            }
        }
        drop(self);
        let all_told = async {
            loop {
                let told = teller.told.notified();
                tokio::pin!(told);
                told.as_mut().enable();
                if teller.state().waiting.keys().all(|at| *at > last) {
                    return;
                }
                told.await;
            }
        };
        let patience = async {
            for _ in 0..STEPS {
                tokio::time::sleep(STEP).await;
            }
        };
        tokio::select! {
            biased;
            () = all_told => {}
            () = patience => {
                teller.state().disregard(last.0);
                teller.flush(Some(last));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hodei_core::JobId;
    use hodei_core::job::{Cause, Epoch, State};
    use hodei_core::{Tenant, Timestamp};
    use tokio::time::Instant;

    use super::*;

    /// Keeps the places of what it is told, which stand in the changes as their versions.
    #[derive(Debug, Default)]
    struct Ear(Mutex<Vec<u32>>);

    impl ChangeSink for Ear {
        fn committed(&self, changes: &[Change]) {
            self.0.lock().expect("no panic").extend(changes.iter().map(|change| change.version));
        }
    }

    impl Ear {
        fn heard(&self) -> Vec<u32> {
            self.0.lock().expect("no panic").clone()
        }
    }

    fn segment(place: u32) -> Segment {
        let change = Change {
            job: JobId::mint(&Tenant::default(), &hodei_core::SystemClock),
            tenant: Tenant::default(),
            queue: None,
            pipeline: None,
            version: place,
            from: None,
            to: State::Pending,
            cause: Cause::Submitted,
            attempt: 0,
            epoch: Epoch::default(),
            at: Timestamp::from_micros(0),
        };
        Segment { at: (place.into(), 0), changes: vec![change] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_verb_that_does_not_end_holds_up_one_reply_and_not_those_after_it() {
        let teller = Arc::<Teller>::default();
        let ear = Arc::<Ear>::default();
        let _feed = teller.feed(Arc::<Ear>::clone(&ear));
        let slow = teller.begin();
        let began = Instant::now();
        teller.begin().committed(&[segment(1)]).await;
        assert_eq!(began.elapsed(), STEPS * STEP);
        for place in 2..22 {
            teller.begin().committed(&[segment(place)]).await;
        }
        assert_eq!(began.elapsed(), STEPS * STEP, "nobody waits for it any more");
        slow.committed(&[segment(0)]).await;
        assert_eq!(ear.heard(), (1..22).chain([0]).collect::<Vec<_>>());
    }

    /// Has a later verb answered first, and the earlier one after a while that passes in jumps, each of which is one to the
    /// runtime, as where the process stood still.
    async fn heard_after(jumps: u32, jump: Duration) -> Vec<u32> {
        let teller = Arc::<Teller>::default();
        let ear = Arc::<Ear>::default();
        let _feed = teller.feed(Arc::<Ear>::clone(&ear));
        let (slow, quick) = (teller.begin(), teller.begin());
        let quick = tokio::spawn(async move { quick.committed(&[segment(2)]).await });
        tokio::task::yield_now().await;
        for _ in 0..jumps {
            tokio::time::advance(jump).await;
        }
        slow.committed(&[segment(1)]).await;
        quick.await.expect("it is told");
        ear.heard()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_verb_is_waited_for() {
        assert_eq!(heard_after(STEPS - 1, STEP).await, [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stood_still_tells_in_order() {
        assert_eq!(heard_after(1, 100 * STEP).await, [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_verb_that_hangs_is_not_waited_for() {
        assert_eq!(heard_after(2 * STEPS, STEP).await, [2, 1]);
    }
}
