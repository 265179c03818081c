//! Claims that are made with a submission in the same process.
//!
//! ```text
//!   driver: nothing to do ── opens ──▶ Post ◀── takes ── submit: polls the submission, then the claim
//!   driver: something came ── closes ──▶              └── hands the claim under way to the driver
//! ```
//!
//! Nothing that was committed before is passed over: the post has a bell of its own, and what has rung since the driver last looked
//! closes it.

use std::fmt;
use std::future::{Future, pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use hodei_core::job::NewJob;
use hodei_core::store::{Exchange, Wakeups};
use hodei_core::{Error, ErrorKind, Timestamp};
use tokio::sync::mpsc;

use crate::driver::{Message, Shared, ask};
use crate::machine::{Effect, Input, Standby};

/// A call of the store under way.
type Call = Pin<Box<dyn Future<Output = Input> + Send>>;

/// One that somebody else has begun.
pub(crate) struct Claiming(pub(crate) Call);

impl fmt::Debug for Claiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claiming")
    }
}

/// Where a driver leaves what may be claimed for it.
pub(crate) struct Post {
    /// A std mutex, held for a look.
    inside: Mutex<Inside>,
}

struct Inside {
    place: Place,
    /// What the store has rung since the driver last looked.
    bell: Wakeups,
}

enum Place {
    Closed,
    Open(Standby),
    Taken,
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Post")
    }
}

impl Inside {
    fn has_rung(&mut self) -> bool {
        self.bell.as_mut().poll_next(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}

impl Post {
    pub(crate) fn new(bell: Wakeups) -> Self {
        Self { inside: Mutex::new(Inside { place: Place::Closed, bell }) }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver has heard the store ring, and will look at the lanes.
    pub(crate) fn heard(&self) {
        self.inside().has_rung();
    }

    /// Leaves what may be claimed.
    pub(crate) fn open(&self, standby: Standby) {
        self.inside().place = Place::Open(standby);
    }

    /// Takes it back, and says whether somebody has taken it: the claim is on its way to the driver then.
    pub(crate) fn close(&self) -> bool {
        matches!(std::mem::replace(&mut self.inside().place, Place::Closed), Place::Taken)
    }

    /// Takes the claim of jobs that are about to be submitted, if it may be made.
    fn take(&self, jobs: &[NewJob], now: Timestamp) -> Option<Exchange> {
        let mut inside = self.inside();
        let Place::Open(standby) = &inside.place else { return None };
        let exchange = standby.exchange(jobs, now)?;
        if inside.has_rung() {
            inside.place = Place::Closed;
            return None;
        }
        inside.place = Place::Taken;
        Some(exchange)
    }
}

/// A claim that is made behind a submission. The driver waits for it, and hears of it whatever happens.
pub(crate) struct Claim<'d> {
    call: Call,
    driver: Option<mpsc::Permit<'d, Message>>,
}

impl<'d> Claim<'d> {
    /// Takes the claim of jobs that are about to be submitted from one of the dispatchers of a node, if one waits for such.
    pub(crate) fn of(
        dispatchers: &[Arc<Shared>],
        drivers: &'d [mpsc::Sender<Message>],
        jobs: &[NewJob],
    ) -> Option<Self> {
        let first = jobs.first()?.id.as_bytes()[15];
        // Each of them has its turn to be asked first.
        let from = usize::from(first) % dispatchers.len().max(1);
        let mut all = dispatchers.iter().zip(drivers).cycle().skip(from).take(dispatchers.len());
        all.find_map(|(shared, driver)| Self::take(shared, driver, jobs))
    }

    /// Takes the claim from one dispatcher.
    fn take(shared: &Arc<Shared>, driver: &'d mpsc::Sender<Message>, jobs: &[NewJob]) -> Option<Self> {
        let permit = driver.try_reserve().ok()?;
        let exchange = shared.post.take(jobs, shared.pace.now())?;
        let call = Box::pin(ask(Arc::clone(shared), Effect::Exchange(Box::new(exchange))));
        Some(Self { call, driver: Some(permit) })
    }

    /// Begins the claim, and hands it to the driver.
    fn begin(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let call: Call = match catch_unwind(AssertUnwindSafe(|| self.call.as_mut().poll(&mut cx))) {
            Ok(Poll::Ready(answer)) => Box::pin(ready(answer)),
            // The driver polls it again when it comes there.
            Ok(Poll::Pending) => std::mem::replace(&mut self.call, Box::pin(pending())),
            // Whoever submits has no part in it.
            Err(panic) => Box::pin(ready(()).map(|()| -> Input { resume_unwind(panic) })),
        };
        if let Some(driver) = self.driver.take() {
            driver.send(Message::Claiming(Claiming(call)));
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            // The store has panicked at the submission.
            let lost = Input::Exchanged(Err(Error::new(ErrorKind::Indeterminate, "store.exchange")));
            driver.send(Message::Claiming(Claiming(Box::pin(ready(lost)))));
        }
    }
}

/// Begins a submission and the claim of its jobs right behind it, so that both are under way when anybody waits; returns what the
/// submission came to.
///
/// # Cancel safety
///
/// The claim is the driver's, whoever goes. Of the submission its store tells.
pub(crate) async fn begun_with<T>(
    claim: Option<Claim<'_>>,
    mut submission: Pin<Box<dyn Future<Output = T> + Send + '_>>,
) -> T {
    if let Some(claim) = claim {
        let at_once = poll_fn(|cx| Poll::Ready(submission.as_mut().poll(cx))).await;
        claim.begin();
        if let Poll::Ready(done) = at_once {
            return done;
        }
    }
    submission.await
}

#[cfg(test)]
mod tests {
    use hodei_core::OwnerId;
    use hodei_core::job::{JobSpec, Lease, rules};
    use hodei_core::store::{JobStore, Lane, MemoryStore, SubmitOptions};
    use tokio::sync::mpsc::Receiver;

    use super::*;

    fn job() -> NewJob {
        NewJob::new(JobSpec::command(["true"]).build().expect("a valid spec"))
    }

    fn standby() -> Standby {
        let owner = Lease { owner: OwnerId::new("node").expect("a name"), incarnation: 1 };
        let (record, _) = rules::admit(job(), Timestamp::EPOCH);
        Standby::of_lane(owner, Lane::of(&record), 3)
    }

    #[tokio::test]
    async fn what_rang_since_the_driver_looked_closes_the_post() {
        let store = MemoryStore::new();
        let post = Post::new(store.wakeups());
        let take = || post.take(&[job()], Timestamp::EPOCH).is_some();
        post.heard();
        assert!(!take(), "nothing was left there");
        post.open(standby());
        store.submit(vec![job()], SubmitOptions::each()).await.expect("the store takes it");
        assert!(!take(), "what was stored before may be ready, and comes first");
        assert!(!take() && !post.close(), "it stays closed until the driver has looked");
        post.open(standby());
        assert!(take(), "the bell has been heard");
        assert!(!take(), "it is one claim");
        assert!(post.close() && !post.close(), "the driver is told once");
    }

    #[tokio::test]
    async fn the_driver_hears_the_bell_itself_before_it_opens() {
        let store = MemoryStore::new();
        let post = Post::new(store.wakeups());
        store.submit(vec![job()], SubmitOptions::each()).await.expect("the store takes it");
        post.heard();
        post.open(standby());
        assert!(post.take(&[job()], Timestamp::EPOCH).is_some());
    }

    fn claim<'d>(driver: &'d mpsc::Sender<Message>, call: Call) -> Claim<'d> {
        Claim { call, driver: Some(driver.try_reserve().expect("there is room")) }
    }

    /// What has come to the driver.
    fn heard(driver: &mut Receiver<Message>) -> Call {
        match driver.try_recv() {
            Ok(Message::Claiming(Claiming(call))) => call,
            other => panic!("a claim is under way, not {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_claim_that_panics_is_the_drivers_affair_and_not_of_whoever_submits() {
        let (sender, mut driver) = mpsc::channel(1);
        let claim = claim(&sender, Box::pin(async { panic!("a store that panics at the claim") }));
        assert_eq!(begun_with(Some(claim), Box::pin(ready(7))).await, 7);
        let panic = AssertUnwindSafe(heard(&mut driver)).catch_unwind().await.expect_err("it goes on there");
        assert_eq!(panic.downcast_ref(), Some(&"a store that panics at the claim"));
    }

    #[tokio::test]
    async fn a_submission_that_panics_leaves_the_driver_with_a_claim_of_unknown_outcome() {
        let (sender, mut driver) = mpsc::channel(1);
        let claim = claim(&sender, Box::pin(pending()));
        let submission = Box::pin(async { panic!("a store that panics at the submission") });
        let done: Result<(), _> = AssertUnwindSafe(begun_with(Some(claim), submission)).catch_unwind().await;
        assert!(done.is_err());
        let Input::Exchanged(Err(error)) = heard(&mut driver).await else { panic!("the answer of a claim") };
        assert_eq!(error.kind(), ErrorKind::Indeterminate);
    }

    #[tokio::test]
    async fn the_claim_is_begun_behind_the_submission_and_is_the_drivers_from_then_on() {
        let (sender, mut driver) = mpsc::channel(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().expect("nobody panics").push(what)
        };
        let (submits, claims, goes_on) = (note("submits"), note("claims"), note("goes on"));
        let claim = claim(
            &sender,
            Box::pin(async move {
                claims();
                hodei_core::turn::give_way().await;
                goes_on();
                Input::Woken
            }),
        );
        let submission = Box::pin(async move {
            submits();
            pending::<()>().await;
        });
        // Whoever submits gives it up: the claim goes on.
        assert!(begun_with(Some(claim), submission).now_or_never().is_none());
        assert_eq!(*order.lock().expect("nobody panics"), ["submits", "claims"]);
        assert!(matches!(heard(&mut driver).await, Input::Woken));
        assert_eq!(*order.lock().expect("nobody panics"), ["submits", "claims", "goes on"]);
    }
}
