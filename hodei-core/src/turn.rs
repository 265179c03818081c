//! Letting others go first, on whichever runtime.

use std::future::poll_fn;
use std::task::Poll;

/// Lets what this task has just woken go first on this thread. Another thread may go on with the task at once: where it is run on
/// is not said, as it is for tokio's `yield_now`, so nobody that blocks holds it up.
///
/// # Cancel safety
///
/// Cancel safe.
pub async fn give_way() {
    let mut gave = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_was_woken_goes_before_whoever_gives_way() {
        let began = Arc::new(AtomicBool::new(false));
        let run = Arc::clone(&began);
        let run = tokio::spawn(async move { run.store(true, Ordering::Relaxed) });
        assert!(!began.load(Ordering::Relaxed), "there is one thread, and it is here");
        give_way().await;
        assert!(began.load(Ordering::Relaxed));
        run.await.expect("it has ended");
    }
}
