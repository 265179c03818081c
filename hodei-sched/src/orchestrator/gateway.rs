//! The node's end of the link to agents in the same process.

use async_trait::async_trait;
use hodei_core::gateway::{Desired, SessionState, WorkerGateway};
use hodei_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};

use crate::driver::Message;

/// Hands the calls of agents to the driver.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) driver: mpsc::Sender<Message>,
}

#[async_trait]
impl WorkerGateway for Gateway {
    async fn sync(&self, state: SessionState) -> Result<Desired> {
        let gone = || Error::new(ErrorKind::Unavailable, "gateway.sync").with("why", "the node has stopped");
        let (reply, answer) = oneshot::channel();
        self.driver.send(Message::Sync(Box::new(state), reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
