//! The tasks of a node, and how they end.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::maintain::Ends;

/// What runs for a node. Dropping it ends all of it at once.
#[derive(Debug)]
pub(super) struct Tasks {
    pub(super) drivers: Vec<JoinHandle<()>>,
    pub(super) upkeep: JoinHandle<()>,
    pub(super) ends: Ends,
    pub(super) auditing: Option<JoinHandle<()>>,
    #[cfg(feature = "cron")]
    pub(super) cron: Option<JoinHandle<()>>,
}

impl Tasks {
    /// Waits until nothing takes a term any more, or for as long as one lasts: a store that answers nothing keeps nobody.
    pub(super) async fn end_duties(&mut self, patience: Duration) {
        self.ends = Ends::new(());
        let ended = async {
            // One that panicked takes none either.
            let _ = (&mut self.upkeep).await;
            #[cfg(feature = "cron")]
            if let Some(cron) = &mut self.cron {
                let _ = cron.await;
            }
        };
        let _ = tokio::time::timeout(patience, ended).await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.drivers.iter().for_each(JoinHandle::abort);
        self.upkeep.abort();
        if let Some(auditing) = &self.auditing {
            auditing.abort();
        }
        #[cfg(feature = "cron")]
        if let Some(cron) = &self.cron {
            cron.abort();
        }
    }
}
