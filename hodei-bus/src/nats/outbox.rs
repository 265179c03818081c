//! Events on their way to the server: a bounded queue, and the task that empties it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::Context;
use async_nats::jetstream::message::PublishMessage;
use tokio::sync::Notify;

use super::wire::{Message, Sent};
use crate::ring::Waiting;

/// How many events a message carries at most. With the longest names they stay below half a mebibyte; a server takes one
/// whole unless it is told otherwise.
const EVENTS: usize = 512;
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

    /// Takes out what the next message carries, if there is anything to tell.
    fn next(&self, publisher: &str, number: u64) -> Option<Message> {
        let mut state = self.state();
        let mut missed = std::mem::take(&mut state.missed_before);
        if state.waiting.is_empty() {
            missed += std::mem::take(&mut state.missed_behind);
        }
        let count = state.waiting.len().min(EVENTS);
        let events: Vec<Sent> = state.waiting.drain(..count).collect();
        state.under_way = count;
        let tells = count > 0 || missed > 0;
        tells.then(|| Message { publisher: publisher.to_owned(), number, missed, events })
    }

    fn sent(&self) {
        self.state().under_way = 0;
        self.room.wake();
    }

    /// Sends what waits, in order, until it is dropped: a message is sent again until the server has acknowledged it, under
    /// one id, by which the server tells a repetition; the next one follows then.
    pub(crate) async fn send(self: Arc<Self>, context: Context, subject: String, publisher: String) {
        let mut number = 1;
        loop {
            let Some(message) = self.next(&publisher, number) else {
                self.filled.notified().await;
                continue;
            };
            let payload = serde_json::to_vec(&message).expect("names and numbers can be written");
            let publish =
                PublishMessage::build().message_id(format!("{publisher}-{number}")).payload(payload.into());
            while !acknowledged(&context, &subject, publish.clone()).await {
                tokio::time::sleep(AGAIN).await;
            }
            number += 1;
            self.sent();
        }
    }
}

async fn acknowledged(context: &Context, subject: &str, publish: PublishMessage) -> bool {
    match context.send_publish(subject.to_owned(), publish).await {
        Ok(reply) => reply.await.is_ok(),
        Err(_) => false,
    }
}
