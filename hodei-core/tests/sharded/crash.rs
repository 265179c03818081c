//! A move that dies at any step, and is taken up again.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use hodei_core::ErrorKind;
use hodei_core::store::*;
use hodei_core::testkit::fault::{Fault, Faults};

use crate::moving::Story;
use crate::world::{Shards, name};

/// Tells the story until the slot moves, lets the move die as `die` says, and holds the shards to what must be so then
/// and after another process has taken the move up.
async fn survives(shards: Shards, die: impl AsyncFnOnce(&ShardedStore, &Story) -> bool) -> bool {
    let store = shards.open().await;
    let story = Story::begin(&store).await;
    let before = story.seen(&store).await.expect("nothing moves yet");
    let died = die(&store, &story).await;
    drop(store);
    shards.faults.iter().for_each(Faults::heal);
    let next = shards.open().await;
    match story.seen(&next).await {
        Ok(seen) => assert_eq!(seen, before, "whatever can be read is whole"),
        Err(error) => assert!(error.is_retryable() && is_slot_closed(&error), "{error}"),
    }
    next.resume_moves().await.expect("it is taken up");
    next.move_slot(story.tenant.slot(), 1).await.expect("or begins anew");
    assert_eq!(next.resume_moves().await.expect("nothing is left"), 0);
    assert_eq!(story.seen(&next).await.expect("it has arrived"), before);
    story.end(&next, &shards).await;
    died
}

#[tokio::test]
async fn a_move_survives_the_failure_of_every_call() {
    for fault in [Fault::Refused, Fault::ReplyLost] {
        let mut calls = 0;
        loop {
            // Both shards count together, so every call of the move has its turn.
            let faults = Faults::new();
            let shards = Shards::with(vec![faults.clone(), faults.clone()]);
            let died = survives(shards, async |store, story| {
                faults.one(calls, fault);
                let moved = store.move_slot(story.tenant.slot(), 1).await;
                moved.is_err_and(|error| {
                    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Indeterminate));
                    true
                })
            });
            if !died.await {
                break;
            }
            calls += 1;
        }
        assert!(calls >= 10, "the move makes more calls than {calls}");
    }
}

/// Once the target has the slot, nothing that is still to be removed from the source is waited for.
#[tokio::test]
async fn who_reads_waits_for_no_row_that_is_removed_from_the_source() {
    let (mut calls, mut arrived) = (0, 0);
    loop {
        let faults = Faults::new();
        let shards = Shards::with(vec![faults.clone(), faults.clone()]);
        let store = shards.open().await;
        let story = Story::begin(&store).await;
        let before = story.seen(&store).await.expect("nothing moves yet");
        faults.one(calls, Fault::Refused);
        let moved = store.move_slot(story.tenant.slot(), 1).await;
        faults.heal();
        if moved.is_ok() {
            break;
        }
        if store.shard_of(&story.tenant) == 1 {
            arrived += 1;
            assert_eq!(story.seen(&store).await.expect("the mover is gone, and all is there"), before);
            let other = shards.open().await;
            assert_eq!(story.seen(&other).await.expect("for other processes too"), before);
            let back = store.give_up_move(story.tenant.slot()).await;
            assert_eq!(back.expect_err("it is there").kind(), ErrorKind::Conflict);
            assert_eq!(other.resume_moves().await.expect("it is cleared away"), 1);
            // And it may go back at once.
            store.move_slot(story.tenant.slot(), 0).await.expect("it moves");
            assert_eq!(story.seen(&store).await.expect("it is back"), before);
        }
        calls += 1;
    }
    assert!(arrived >= 1, "the rows are removed after the slot has arrived");
}

#[tokio::test]
async fn a_move_survives_being_dropped_anywhere() {
    let mut polls = 0;
    loop {
        let faults = Faults::new();
        let shards = Shards::with(vec![faults.clone(), faults.clone()]);
        let dropped = survives(shards, async |store, story| {
            faults.wait(7);
            let mut moving = Box::pin(store.move_slot(story.tenant.slot(), 1));
            let mut left = polls;
            let ended = poll_fn(|cx| match moving.as_mut().poll(cx) {
                Poll::Ready(moved) => Poll::Ready(Some(moved)),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            });
            ended.await.map(|moved| moved.expect("it moves")).is_none()
        });
        if !dropped.await {
            break;
        }
        polls += 1;
    }
    assert!(polls >= 10, "the move waits more often than {polls} times");
}

#[tokio::test]
async fn two_processes_make_the_same_move() {
    for seed in 0..200 {
        let shards = Shards::new(2);
        let (one, two) = (shards.open().await, shards.open().await);
        let story = Story::begin(&one).await;
        let before = story.seen(&one).await.expect("nothing moves yet");
        for (n, faults) in shards.faults.iter().enumerate() {
            faults.wait(seed * 2 + n as u64);
        }
        let slot = story.tenant.slot();
        let (a, b) = tokio::join!(one.move_slot(slot, 1), two.move_slot(slot, 1));
        assert!(a.is_ok() && b.is_ok(), "seed {seed}: {a:?} {b:?}");
        for store in [&one, &two] {
            assert_eq!(story.seen(store).await.expect("it has arrived"), before, "seed {seed}");
        }
        story.end(&one, &shards).await;
    }
}

#[tokio::test]
async fn a_move_is_given_up_before_its_switch_and_not_after() {
    let faults = Faults::new();
    let (mut calls, mut given_up) = (0, 0);
    loop {
        faults.heal();
        let shards = Shards::with(vec![faults.clone(), faults.clone()]);
        let store = shards.open().await;
        let story = Story::begin(&store).await;
        let before = story.seen(&store).await.expect("nothing moves yet");
        faults.one(calls, Fault::Refused);
        if store.move_slot(story.tenant.slot(), 1).await.is_ok() {
            break;
        }
        faults.heal();
        let late = shards.open().await;
        let home = Arc::clone(&shards.stores[0]);
        match store.give_up_move(story.tenant.slot()).await {
            Ok(()) => {
                given_up += 1;
                assert_eq!(store.shard_of(&story.tenant), 0);
                assert_eq!(story.seen(&store).await.expect("it is open again"), before);
                assert_eq!(late.resume_moves().await.expect("there is nothing to take up"), 0);
                assert_eq!(home.counts(&Scope::All).await.expect("counts").total(), before.total() - 1);
                store.move_slot(story.tenant.slot(), 1).await.expect("and may move again");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                store.move_slot(story.tenant.slot(), 1).await.expect("it can only go on");
            }
        }
        assert_eq!(story.seen(&store).await.expect("it has arrived"), before);
        story.end(&store, &shards).await;
        calls += 1;
    }
    assert!(given_up > 3 && calls > given_up, "{given_up} of {calls}");
}

#[tokio::test]
async fn giving_up_survives_the_failure_of_every_call() {
    let mut failed = 0;
    for (calls, fault) in (0..8).flat_map(|n| [(n, Fault::Refused), (n, Fault::ReplyLost)]) {
        let faults = Faults::new();
        let shards = Shards::with(vec![faults.clone(), faults.clone()]);
        let store = shards.open().await;
        let story = Story::begin(&store).await;
        let (slot, before) = (story.tenant.slot(), story.seen(&store).await.expect("nothing moves yet"));
        // The map is read and written, the slot is sealed and expected; its rows are not read any more.
        faults.one(4, Fault::Refused);
        store.move_slot(slot, 1).await.expect_err("it does not get there");
        faults.one(calls, fault);
        let given_up = store.give_up_move(slot).await;
        failed += u32::from(given_up.is_err());
        faults.heal();
        let next = shards.open().await;
        let resumed = next.resume_moves().await.expect("it is taken up");
        assert!(given_up.is_err() || resumed == 0);
        assert_eq!(story.seen(&next).await.expect("somewhere"), before);
        let limit = Limit::key(story.tenant.clone(), name("k"), 1);
        next.set_limit(limit).await.expect("wherever it is, it is open");
        next.move_slot(slot, 1).await.expect("and may move");
        story.end(&next, &shards).await;
    }
    assert!(failed >= 6, "{failed} failures");
}
