//! The wake-ups of all shards as one stream.

use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::super::{Wakeup, Wakeups};
use super::store::{Inner, ShardedStore};

impl ShardedStore {
    pub(super) fn wakeups_of_all(&self) -> Wakeups {
        // Listen first, then look who is there: a shard that joins in between is not missed.
        let joined = self.joined().listen();
        let of_shards = self.shards().iter().map(|seat| Some(seat.taken()?.wakeups())).collect();
        let absent = self.absent();
        let joined = (!absent.is_empty()).then_some(joined);
        Box::pin(All { of_shards, store: self.downgrade(), absent, joined })
    }
}

struct All {
    of_shards: Vec<Option<Wakeups>>,
    /// The store, which is not kept by whoever waits for it.
    store: Weak<Inner>,
    /// Which shards were absent so far, and what rings when one joins; nothing when all are there.
    absent: Vec<usize>,
    joined: Option<Wakeups>,
}

impl All {
    /// Listens to the shards that have joined.
    fn welcome(&mut self) {
        let Some(store) = ShardedStore::upgrade(&self.store) else { return };
        let Self { of_shards, absent, .. } = self;
        absent.retain(|n| {
            let there = store.shards()[*n].taken();
            of_shards[*n] = there.map(|shard| shard.wakeups());
            there.is_none()
        });
    }

    /// Says whether a shard has joined since.
    fn has_joined(&mut self, cx: &mut Context<'_>) -> bool {
        let rung = self.joined.as_mut().map(|joined| joined.as_mut().poll_next(cx));
        match rung {
            Some(Poll::Ready(Some(Wakeup))) => self.welcome(),
            _ => return false,
        }
        true
    }
}

impl Stream for All {
    type Item = Wakeup;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Wakeup>> {
        // What is ready in a shard that joins, nobody was told of: it is a wake-up itself.
        let mut woken = false;
        while self.has_joined(cx) {
            woken = true;
        }
        if self.absent.is_empty() {
            self.joined = None;
        }
        // All are looked at, so that the wake-ups of several shards count as one.
        for of_shard in &mut self.of_shards {
            match of_shard.as_mut().map(|wakeups| wakeups.as_mut().poll_next(cx)) {
                Some(Poll::Ready(Some(Wakeup))) => woken = true,
                Some(Poll::Ready(None)) => *of_shard = None,
                Some(Poll::Pending) | None => {}
            }
        }
        let over = self.joined.is_none() && self.of_shards.iter().all(Option::is_none);
        match woken {
            true => Poll::Ready(Some(Wakeup)),
            false if over => Poll::Ready(None),
            false => Poll::Pending,
        }
    }
}
