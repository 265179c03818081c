//! The stream on the server.

use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Stream};

use super::options::NatsOptions;

/// Where a stream is, and what it is like when it has to be made.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) context: Context,
    config: Config,
}

impl Source {
    pub(crate) fn new(context: Context, options: &NatsOptions) -> Self {
        let config = Config {
            name: options.stream.clone(),
            subjects: vec![format!("{}.events", options.stream)],
            max_bytes: options.max_bytes,
            num_replicas: options.replicas,
            discard: DiscardPolicy::Old,
            ..Config::default()
        };
        Self { context, config }
    }

    /// Finds the stream as it is now, or makes it.
    pub(crate) async fn open(&self) -> Result<Stream, async_nats::Error> {
        Ok(self.context.get_or_create_stream(self.config.clone()).await?)
    }

    pub(crate) fn subject(&self) -> String {
        self.config.subjects.concat()
    }
}
