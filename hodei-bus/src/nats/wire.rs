//! What a message looks like: JSON, so that others can read the stream as well.

use hodei_core::event::{Event, Keys};
use hodei_core::store::Change;
use hodei_core::{Name, PipelineId};
use serde::{Deserialize, Serialize};

use crate::bus::Post;

/// Events of one publisher that were sent together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// Whose they are: drawn anew by each process.
    pub(crate) publisher: String,
    /// Which message of that publisher it is, from 1 on.
    pub(crate) number: u64,
    /// How many events were dropped before these for want of room.
    #[serde(default)]
    pub(crate) missed: u64,
    pub(crate) events: Vec<Sent>,
}

/// An event with what filters look at beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) event: Event,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) queue: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pipeline: Option<PipelineId>,
}

impl Post for Sent {
    fn keys(&self) -> Keys<'_> {
        Keys { queue: self.queue.as_ref(), pipeline: self.pipeline, ..self.event.keys() }
    }

    fn event(&self) -> Event {
        self.event.clone()
    }
}

impl From<&Event> for Sent {
    fn from(event: &Event) -> Self {
        Self { event: event.clone(), queue: None, pipeline: None }
    }
}

impl From<&Change> for Sent {
    fn from(change: &Change) -> Self {
        Self { event: Event::from(change), queue: change.queue.clone(), pipeline: change.pipeline }
    }
}
