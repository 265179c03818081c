//! Publishing into a ring.

use std::time::Duration;

use hodei_core::bus::SubscribeOptions;
use tokio::task::coop::consume_budget;

use super::shared::{How, Shared, Short};
use super::subscriber::Subscriber;
use crate::sync::Arc;

/// A ring of events that many publish and many read. Cloning shares it; subscribers drain what is there when the last
/// handle is gone.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use hodei_bus::ring::Ring;
/// use hodei_core::bus::SubscribeOptions;
///
/// let ring = Ring::new(1_024);
/// let mut reader = ring.subscribe(SubscribeOptions::default());
/// ring.publish_batch(0..10).await.unwrap();
/// let batch = reader.recv_batch(100).await.unwrap();
/// assert_eq!(batch.iter().sum::<i32>(), 45);
/// # });
/// ```
#[derive(Debug)]
pub struct Ring<T: Send + Sync>(Arc<Handle<T>>);

#[derive(Debug)]
struct Handle<T: Send + Sync>(Arc<Shared<T>>);

/// A subscriber of the policies `Block` or `Fail` has no room. Holds what was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T: Send + Sync> Clone for Ring<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + Sync> Drop for Handle<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T: Send + Sync> Ring<T> {
    /// Makes a ring that holds so many events. Memory is taken as it is filled, and kept.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Handle(Arc::new(Shared::new(capacity)))))
    }

    pub(crate) fn shared(&self) -> &Shared<T> {
        &self.0.0
    }

    /// Subscribes from now on. A capacity above that of the ring is lowered to it.
    #[must_use]
    pub fn subscribe(&self, options: SubscribeOptions) -> Subscriber<T> {
        Subscriber::new(Arc::clone(&self.0.0), &options)
    }

    /// Publishes an event if every subscriber that blocks has room for it.
    ///
    /// # Errors
    ///
    /// [`Full`], with the event.
    pub fn try_publish(&self, event: T) -> Result<(), Full<T>> {
        let mut event = Some(event);
        self.shared().offer_one(&mut event);
        event.map_or(Ok(()), |event| Err(Full(event)))
    }

    /// Publishes an event, and waits until every subscriber that blocks has room for it.
    ///
    /// # Errors
    ///
    /// [`Full`], with the event, when a subscriber of the policy `Fail` has no room.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: when dropped, the event was not published.
    pub fn publish(&self, event: T) -> impl Future<Output = Result<(), Full<T>>> {
        // Into the future at once: a copy less than an `async fn` makes.
        let mut event = Some(event);
        async move {
            let ring = self.shared();
            if ring.gives_way() {
                consume_budget().await;
            }
            // Here already: to step into another future costs as much as to publish.
            if ring.offer_one(&mut event).is_some() {
                self.publish_taken(&mut event).await;
            }
            event.map_or(Ok(()), |event| Err(Full(event)))
        }
    }

    /// As [`Ring::publish`], but waits no longer than `wait`. Needs a tokio runtime that has timers.
    ///
    /// # Errors
    ///
    /// [`Full`], with the event, when there is no room in time, or a subscriber of the policy `Fail` has none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: when dropped, the event was not published.
    pub async fn publish_timeout(&self, event: T, wait: Duration) -> Result<(), Full<T>> {
        let mut event = Some(event);
        if self.shared().gives_way() {
            consume_budget().await;
        }
        // Whether it was published in time is seen by whether it is still here.
        let _ = tokio::time::timeout(wait, self.publish_taken(&mut event)).await;
        event.map_or(Ok(()), |event| Err(Full(event)))
    }

    /// Takes the event out when it is published; leaves it there when somebody makes publishers fail.
    async fn publish_taken(&self, event: &mut Option<T>) {
        let ring = self.shared();
        let attempt = || match ring.offer_one(event) {
            Some(Short::Wait(blocker)) => Err(blocker),
            Some(Short::Fail | Short::Ask) | None => Ok(()),
        };
        ring.room.until(attempt).await;
        if event.is_some() {
            // Who tries again and again lets others run as well.
            consume_budget().await;
        }
    }

    /// Publishes as many events of an iterator as there is room for, and returns how many. The rest stays in it.
    ///
    /// The iterator runs while the ring is locked, and so does the `Drop` of events whose place is taken: they should be
    /// quick, and must not use the ring.
    pub fn try_publish_batch(&self, events: &mut impl ExactSizeIterator<Item = T>) -> usize {
        self.shared().offer(events.len(), How::Part, |_| events).taken
    }

    /// Publishes events in order and waits for room as often as it must; where it has waited, other publishers may have
    /// come in between.
    ///
    /// The iterator runs while the ring is locked, and so does the `Drop` of events whose place is taken: they should be
    /// quick, and must not use the ring.
    ///
    /// # Errors
    ///
    /// [`Full`], with how many events were published, when a subscriber of the policy `Fail` has no room.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: when dropped, the first events may have been published.
    pub async fn publish_batch<I>(&self, events: I) -> Result<usize, Full<usize>>
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: ExactSizeIterator,
    {
        let mut events = events.into_iter();
        consume_budget().await;
        let (mut done, ring) = (0, self.shared());
        let attempt = || {
            while events.len() > 0 {
                let offered = ring.offer(events.len(), How::Part, |_| &mut events);
                done += offered.taken;
                match offered.short {
                    Some(Short::Wait(blocker)) => return Err(blocker),
                    Some(Short::Fail | Short::Ask) => return Ok(Err(Full(()))),
                    // The iterator has ended before its length.
                    None if offered.taken == 0 => break,
                    None => {}
                }
            }
            Ok(Ok(()))
        };
        let published = ring.room.until(attempt).await;
        published.map(|()| done).map_err(|Full(())| Full(done))
    }
}
