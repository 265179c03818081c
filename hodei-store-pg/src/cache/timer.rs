//! The timer that bounds the visits to a tier.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use hodei_core::store::Timer;

/// The timer of tokio, for the budget of a tier.
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioTimer;

impl Timer for TokioTimer {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(time))
    }
}
