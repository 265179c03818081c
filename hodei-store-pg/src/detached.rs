//! Work that goes on when whoever waits for it goes away.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

type Work<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// A future that its caller drives as long as he waits for it, which costs no change of the task; a task of its own brings
/// it to its end when he is cancelled. Where nobody drives it and nobody lets it go it stands still: others must not wait
/// for it.
pub(crate) struct Detached<R: Send + 'static> {
    work: Option<Work<R>>,
    runtime: Handle,
}

impl<R: Send + 'static> Detached<R> {
    /// Takes work, of which nothing is done before it is waited for. Called within a runtime.
    pub(crate) fn new(work: impl Future<Output = R> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), runtime: Handle::current() }
    }
}

impl<R: Send + 'static> Future for Detached<R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        // It is not there while it runs: what has panicked is not begun again.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<R: Send + 'static> Drop for Detached<R> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    fn counting(steps: &Arc<AtomicU32>, gate: &Arc<Semaphore>) -> Detached<u32> {
        let (steps, gate) = (Arc::clone(steps), Arc::clone(gate));
        Detached::new(async move {
            steps.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.expect("it is open").forget();
            steps.fetch_add(1, Ordering::SeqCst)
        })
    }

    #[tokio::test]
    async fn it_is_driven_by_its_caller_and_ends_without_him() {
        let (steps, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(1)));
        assert_eq!(counting(&steps, &gate).await, 1);
        let mut left = counting(&steps, &gate);
        assert_eq!(steps.load(Ordering::SeqCst), 2, "nothing is done before it is waited for");
        tokio::select! {
            biased;
            _ = &mut left => unreachable!("the gate is shut"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(steps.load(Ordering::SeqCst), 3);
        drop(left);
        gate.add_permits(1);
        while steps.load(Ordering::SeqCst) < 4 {
            tokio::task::yield_now().await;
        }
    }
}
