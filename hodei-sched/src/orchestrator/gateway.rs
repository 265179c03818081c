//! The node's end of the link to agents in the same process.

use async_trait::async_trait;
use hodei_core::gateway::{Desired, SessionState, WorkerGateway};
use hodei_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};

use crate::driver::Message;
use crate::machine::worker_key;

/// Hands the calls of agents to the drivers: those of a worker always to the same one, as long as that lives.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) drivers: Vec<mpsc::Sender<Message>>,
}

#[async_trait]
impl WorkerGateway for Gateway {
    async fn sync(&self, state: SessionState) -> Result<Desired> {
        let gone = || Error::new(ErrorKind::Unavailable, "gateway.sync").with("why", "the node has stopped");
        let (reply, answer) = oneshot::channel();
        let key = worker_key(&state.worker);
        let place = |drivers: usize| usize::try_from(key % drivers.max(1) as u64).unwrap_or(0);
        let driver = match self.drivers.get(place(self.drivers.len())).filter(|driver| !driver.is_closed()) {
            Some(driver) => Some(driver),
            None => {
                // Its dispatcher has died: the others share its workers.
                let living: Vec<_> = self.drivers.iter().filter(|driver| !driver.is_closed()).collect();
                living.get(place(living.len())).copied()
            }
        };
        driver.ok_or_else(gone)?.send(Message::Sync(Box::new(state), reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
