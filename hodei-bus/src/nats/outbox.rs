//! Events on their way to the server: a bounded queue, and the task that empties it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use hodei_core::{Error, ErrorKind};
use tokio::sync::Notify;

use super::stream::Source;
use super::wire::{Message, Sent};
use crate::ring::{Blocker, Waiting};

/// How many events a message carries at most. With the longest names they stay below half a mebibyte; a server takes one
/// whole unless it is told otherwise.
const EVENTS: usize = 512;
/// How many bytes of a message are beside its payload: its id and the names of headers.
const HEADERS: usize = 256;
/// How long it waits before it sends a message again.
const AGAIN: Duration = Duration::from_millis(50);

/// What waits to be sent.
#[derive(Debug)]
pub(crate) struct Outbox {
    capacity: usize,
    /// A std mutex, held for a batch.
    state: Mutex<State>,
    pub(crate) room: Waiting,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Sent>,
    /// How many events were dropped before those that wait, and how many behind them.
    missed_before: u64,
    missed_behind: u64,
    /// How many are being sent.
    under_way: usize,
    published: u64,
    /// What the server said last, when that was not that it has taken a message.
    error: Option<String>,
}

/// What messages are sent with.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) client: Client,
    pub(crate) source: Source,
    /// Whose messages they are.
    pub(crate) publisher: String,
}

/// The server: nobody keeps an account of it.
impl Blocker for () {
    fn charge(&self, _: Duration) {}
}

impl Outbox {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity: capacity.max(1),
            state: Mutex::default(),
            room: Waiting::default(),
            filled: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes as many of so many events as there is room for; with `whole` all or none. Returns how many.
    pub(crate) fn take<I: Iterator<Item = Sent>>(
        &self,
        wanted: usize,
        whole: bool,
        events: impl FnOnce(usize) -> I,
    ) -> usize {
        let mut state = self.state();
        let room = self.capacity.saturating_sub(state.waiting.len() + state.under_way);
        // Nothing may come before a gap that was not told.
        let room = if state.missed_behind > 0 && !state.waiting.is_empty() { 0 } else { room };
        let taken = if room < wanted && whole { 0 } else { room.min(wanted) };
        if taken > 0 {
            state.missed_before += std::mem::take(&mut state.missed_behind);
            state.waiting.extend(events(taken).take(taken));
            state.published += taken as u64;
            drop(state);
            self.filled.notify_one();
        }
        taken
    }

    /// Notes events that are dropped.
    pub(crate) fn miss(&self, events: usize) {
        self.state().missed_behind += events as u64;
        self.filled.notify_one();
    }

    /// Returns how many events were taken in, and how many wait or are being sent.
    pub(crate) fn counts(&self) -> (u64, usize) {
        let state = self.state();
        (state.published, state.waiting.len() + state.under_way)
    }

    /// Makes the error of whoever has waited in vain, with what the server said last.
    pub(crate) fn late(&self, op: &'static str) -> Error {
        let error = Error::new(ErrorKind::Timeout, op);
        match &self.state().error {
            Some(said) => error.with("server", said),
            None => error,
        }
    }

    fn said(&self, error: Option<String>) {
        self.state().error = error;
    }

    /// Takes out what the next message carries, if there is anything to tell.
    fn next(&self, publisher: &str, number: u64, most: usize) -> Option<Message> {
        let mut state = self.state();
        let mut missed = std::mem::take(&mut state.missed_before);
        if state.waiting.is_empty() {
            missed += std::mem::take(&mut state.missed_behind);
        }
        let count = state.waiting.len().min(most);
        let events: Vec<Sent> = state.waiting.drain(..count).collect();
        state.under_way = count;
        let tells = count > 0 || missed > 0;
        tells.then(|| Message { publisher: publisher.to_owned(), number, missed, events })
    }

    /// Puts back what was too large for a message; an event that is so by itself is missed.
    fn put_back(&self, message: Message) {
        let mut state = self.state();
        state.under_way = 0;
        state.missed_before += message.missed;
        if message.events.len() == 1 {
            state.missed_before += 1;
        } else {
            message.events.into_iter().rev().for_each(|sent| state.waiting.push_front(sent));
        }
    }

    fn sent(&self) {
        self.state().under_way = 0;
        self.room.wake();
    }

    /// Sends what waits, in order, until it is dropped: a message is sent again until the server has acknowledged it, under
    /// one id, by which the server tells a repetition; the next one follows then.
    pub(crate) async fn send(self: Arc<Self>, sender: Sender) {
        let (mut number, mut most) = (1, EVENTS);
        loop {
            let Some(message) = self.next(&sender.publisher, number, most) else {
                self.filled.notified().await;
                continue;
            };
            let count = message.events.len();
            match self.deliver(&sender, &message).await {
                Delivered::Acknowledged => {
                    number += 1;
                    most = EVENTS.min(most.max(count * 2));
                    self.said(None);
                }
                Delivered::TooLarge => {
                    most = (count / 2).max(1);
                    self.put_back(message);
                }
            }
            self.sent();
        }
    }

    async fn deliver(&self, sender: &Sender, message: &Message) -> Delivered {
        let payload = serde_json::to_vec(message).expect("names and numbers can be written");
        if !message.events.is_empty() && payload.len() + HEADERS > sender.client.max_payload() {
            return Delivered::TooLarge;
        }
        let id = format!("{}-{}", sender.publisher, message.number);
        let publish = PublishMessage::build().message_id(id).payload(payload.into());
        loop {
            let reply =
                match sender.source.context.send_publish(sender.source.subject(), publish.clone()).await {
                    Ok(reply) => reply.await,
                    Err(error) => Err(error),
                };
            let Err(error) = reply else { return Delivered::Acknowledged };
            self.said(Some(error.to_string()));
            match error.kind() {
                PublishErrorKind::MaxPayloadExceeded if !message.events.is_empty() => {
                    return Delivered::TooLarge;
                }
                PublishErrorKind::StreamNotFound => {
                    if let Err(error) = sender.source.open().await {
                        self.said(Some(error.to_string()));
                    }
                }
                _ => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivered {
    Acknowledged,
    TooLarge,
}
