//! Tells those who wait, and the bus, what the store has committed.

use std::sync::Arc;

use hodei_core::bus::EventBus;
use hodei_core::store::{Change, ChangeSink};

use crate::settled::Waiters;

/// The node's ear at its store. The store calls it in the order of the commits, whoever made them; so nobody else
/// publishes what happens to jobs.
#[derive(Debug)]
pub(crate) struct Herald {
    pub(crate) waiters: Waiters,
    pub(crate) bus: Option<Arc<dyn EventBus>>,
}

impl ChangeSink for Herald {
    fn committed(&self, changes: &[Change]) {
        // The bus first: whoever is told of an end finds its event there.
        if let Some(bus) = &self.bus {
            bus.publish_changes(changes);
        }
        self.waiters.tell(changes);
    }
}
