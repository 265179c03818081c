//! The bus between processes, over NATS JetStream.
//!
//! ```text
//!  publish ─▶ outbox ─▶ one message at a time, each acknowledged ─▶ stream ─▶ inbox ─▶ local bus ─▶ subscribers
//!             bounded    the same id when it is sent again          on disk   by sequence, no event twice
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `bus` | [`NatsBus`] |
//! | `options` | which stream, and who is let in |
//! | `outbox` | events on their way to the server |
//! | `inbox` | messages on their way to local subscribers |
//! | `stream` | the stream on the server |
//! | `place` | how far it was read |
//! | `wire` | what a message looks like |

mod bus;
mod inbox;
mod options;
mod outbox;
mod place;
mod stream;
mod wire;

pub use bus::NatsBus;
pub use options::{NatsLogin, NatsOptions, NatsTls, Start};
pub use place::Place;
