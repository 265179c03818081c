//! The port of what is scaled.

use std::fmt;

use async_trait::async_trait;
use hodei_core::Result;

/// Starts and stops agents.
///
/// # Cancel safety
///
/// A dropped call may have asked for some of it; asking again does no harm. What only reads may be dropped at any point.
#[async_trait]
pub trait ScaleTarget: Send + Sync + fmt::Debug {
    /// Returns how many agents were asked for last, less those that are known to have died.
    ///
    /// # Errors
    ///
    /// What keeps it from knowing; retryable when it may know later.
    async fn current(&self) -> Result<u32>;

    /// Asks for so many agents. Those that are too many take no more work and end when what they run has ended. Idempotent;
    /// returns when it has been asked for, not when it is so.
    ///
    /// # Errors
    ///
    /// What keeps it from asking; asking again does no harm.
    async fn scale_to(&self, agents: u32) -> Result<()>;
}

const _: fn(&dyn ScaleTarget) = |_| ();
