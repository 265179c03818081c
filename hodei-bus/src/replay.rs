//! Events read back from the change log of a store: what a subscriber missed, and what happened before it came.

use std::sync::Arc;

use hodei_core::Result;
use hodei_core::event::Event;
use hodei_core::store::{Cursor, JobStore, Scope};

/// Reads the committed transitions of a scope in order, from a cursor on.
///
/// After [`Delivery::Lagged`](hodei_core::bus::Delivery::Lagged), drop what the subscription still holds for the jobs
/// concerned and read on here: each event carries the job's version, so a repetition is told apart by
/// (job, version).
#[derive(Debug)]
pub struct Replay {
    store: Arc<dyn JobStore>,
    scope: Scope,
    cursor: Option<Cursor>,
}

impl Replay {
    /// Begins with the oldest change that is kept.
    #[must_use]
    pub fn from_start(store: Arc<dyn JobStore>, scope: Scope) -> Self {
        Self { store, scope, cursor: None }
    }

    /// Begins after a cursor that was kept from before.
    #[must_use]
    pub fn after(store: Arc<dyn JobStore>, scope: Scope, cursor: Cursor) -> Self {
        Self { store, scope, cursor: Some(cursor) }
    }

    /// Returns up to `max` events that follow; none when it has caught up.
    ///
    /// # Errors
    ///
    /// `CursorExpired` when retention has removed what would follow; else what the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the place moves on only over what was returned, or is of others.
    pub async fn next(&mut self, max: usize) -> Result<Vec<Event>> {
        loop {
            let page = self.store.changes(&self.scope, self.cursor.clone(), max).await?;
            // A page may be empty without being the last; the last gives its own cursor back.
            let last = self.cursor.as_ref() == Some(&page.next);
            self.cursor = Some(page.next);
            if last || !page.changes.is_empty() {
                return Ok(page.changes.iter().map(Event::from).collect());
            }
        }
    }

    /// Returns the place reached, to be kept.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }
}
