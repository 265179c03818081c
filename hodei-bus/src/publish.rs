//! Publishing in batches, one event at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hodei_core::bus::EventBus;
use hodei_core::event::Event;
use hodei_core::{Error, ErrorKind, Result};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// The longest time between two attempts to publish what was refused.
const AGAIN_MAX: Duration = Duration::from_millis(100);

/// When a [`BatchingPublisher`] publishes what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// How many events it holds at most: with so many, it publishes. Default: 256.
    pub size: usize,
    /// How long an event waits for others at most. Default: 1 ms.
    pub delay: Duration,
    /// How long it waits for subscribers that are full. Default: 30 s.
    pub wait: Duration,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { size: 256, delay: Duration::from_millis(1), wait: Duration::from_secs(30) }
    }
}

/// Collects events and publishes them together: when it holds enough, when the first has waited long enough, and when it
/// is dropped.
///
/// An event that is published alone costs the lock and the wake-up of a batch; collected, it costs a push.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::sync::Arc;
///
/// use hodei_bus::{BatchOptions, BatchingPublisher, Bus};
/// use hodei_core::Timestamp;
/// use hodei_core::bus::{EventBus, EventFilter, SubscribeOptions};
/// use hodei_core::event::{Event, WorkerEvent};
/// use hodei_core::Name;
///
/// let bus = Arc::new(Bus::new());
/// let mut heard = bus.subscribe(EventFilter::all(), SubscribeOptions::default());
/// let publisher = BatchingPublisher::new(Arc::clone(&bus) as Arc<dyn EventBus>, BatchOptions::default());
/// let worker = Name::literal("w");
/// let event = WorkerEvent { worker, incarnation: 1, at: Timestamp::EPOCH, connected: true };
/// publisher.push(Event::Worker(event)).await?;
/// publisher.flush().await?;
/// assert_eq!(heard.recv(10).await.len(), 1);
/// # Ok::<(), hodei_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct BatchingPublisher {
    batch: Arc<Batch>,
    timer: JoinHandle<()>,
}

#[derive(Debug)]
struct Batch {
    bus: Arc<dyn EventBus>,
    options: BatchOptions,
    /// A std mutex, held for a push or a swap.
    held: Mutex<Vec<Event>>,
    /// What is being published; whoever holds the lock publishes. It is older than what is held.
    sending: tokio::sync::Mutex<Vec<Event>>,
    /// Told when the first event of a batch has come.
    begun: Arc<Notify>,
}

impl BatchingPublisher {
    /// Makes a publisher that holds nothing. Must be called within a tokio runtime that has timers.
    #[must_use]
    pub fn new(bus: Arc<dyn EventBus>, options: BatchOptions) -> Self {
        let batch = Arc::new(Batch {
            bus,
            options,
            held: Mutex::default(),
            sending: tokio::sync::Mutex::default(),
            begun: Arc::default(),
        });
        let timer =
            tokio::spawn(flush_in_time(Arc::downgrade(&batch), Arc::clone(&batch.begun), options.delay));
        Self { batch, timer }
    }

    /// Takes an event; publishes first when it holds enough.
    ///
    /// # Errors
    ///
    /// As [`EventBus::publish_from`]; then the event was not taken, and what is held is tried again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: when dropped while it waits, the event was not taken.
    pub async fn push(&self, event: Event) -> Result<()> {
        let mut event = Some(event);
        loop {
            {
                let mut held = self.batch.held();
                if held.len() < self.batch.options.size.max(1) {
                    held.extend(event.take());
                    if held.len() == 1 {
                        self.batch.begun.notify_one();
                    }
                    return Ok(());
                }
            }
            self.batch.flush().await?;
        }
    }

    /// Publishes what is held.
    ///
    /// # Errors
    ///
    /// As [`EventBus::publish_from`]; what could not be published is held on to.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was not published is held on to.
    pub async fn flush(&self) -> Result<()> {
        self.batch.flush().await
    }
}

impl Drop for BatchingPublisher {
    fn drop(&mut self) {
        // What is held is published with the last reference: here, or by the timer when it is at it just now.
        self.timer.abort();
    }
}

impl Batch {
    fn held(&self) -> MutexGuard<'_, Vec<Event>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what is held, within one wait however many wait for their turn.
    async fn flush(&self) -> Result<()> {
        let until = Instant::now() + self.options.wait;
        let Ok(mut sending) = timeout_at(until, self.sending.lock()).await else {
            let unpublished = self.held().len();
            return Err(Error::new(ErrorKind::Timeout, "bus.publish").with("unpublished", unpublished));
        };
        if !sending.is_empty() {
            // Left over from before: so no more than twice the size is ever held.
            self.bus.publish_from(&mut sending, until.saturating_duration_since(Instant::now())).await?;
        }
        std::mem::swap(&mut *sending, &mut *self.held());
        if sending.is_empty() {
            return Ok(());
        }
        self.bus.publish_from(&mut sending, until.saturating_duration_since(Instant::now())).await
    }
}

impl Drop for Batch {
    /// Nobody can wait here: subscribers that are full get a gap.
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        let sending = self.sending.get_mut();
        sending.extend(held);
        if !sending.is_empty() {
            self.bus.publish_or_gap(sending);
        }
    }
}

/// Holds the batch while it publishes only, so that dropping the publisher publishes at once in between. What cannot be
/// published is held on to and tried again.
async fn flush_in_time(batch: std::sync::Weak<Batch>, begun: Arc<Notify>, delay: Duration) {
    loop {
        begun.notified().await;
        let mut pause = delay;
        loop {
            tokio::time::sleep(pause).await;
            let Some(batch) = batch.upgrade() else { return };
            if batch.flush().await.is_ok() {
                break;
            }
            pause = AGAIN_MAX.min((pause * 2).max(Duration::from_millis(1)));
        }
    }
}
