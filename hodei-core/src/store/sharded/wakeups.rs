//! The wake-ups of all shards as one stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::super::{Wakeup, Wakeups};
use super::store::ShardedStore;

impl ShardedStore {
    pub(super) fn wakeups_of_all(&self) -> Wakeups {
        Box::pin(All { of_shards: self.shards().iter().map(|shard| Some(shard.wakeups())).collect() })
    }
}

struct All {
    of_shards: Vec<Option<Wakeups>>,
}

impl Stream for All {
    type Item = Wakeup;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Wakeup>> {
        let mut woken = false;
        // All are looked at, so that the wake-ups of several shards count as one.
        for of_shard in &mut self.of_shards {
            match of_shard.as_mut().map(|wakeups| wakeups.as_mut().poll_next(cx)) {
                Some(Poll::Ready(Some(Wakeup))) => woken = true,
                Some(Poll::Ready(None)) => *of_shard = None,
                Some(Poll::Pending) | None => {}
            }
        }
        match woken {
            true => Poll::Ready(Some(Wakeup)),
            false if self.of_shards.iter().all(Option::is_none) => Poll::Ready(None),
            false => Poll::Pending,
        }
    }
}
