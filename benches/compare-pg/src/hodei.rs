//! The load on Hodei: the scheduler, the agent and the store on PostgreSQL, with their defaults. Rows are kept, and every
//! transition is fenced.

use std::sync::Arc;

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_benches::hodei::{Numbered, numbered};
use hodei_benches::load::Marks;
use hodei_core::job::{NewJob, State};
use hodei_core::store::{ChangeLog, JobStore as _, Scope, SubmitOptions};
use hodei_sched::Orchestrator;
use hodei_store_pg::PgStore;

use crate::peer::{Peer, Result};

/// How many jobs run at once.
const SLOTS: u32 = 1_024;

/// Every transition is recorded.
pub(crate) const ALL: u8 = 0;
/// Submissions and ends are recorded.
pub(crate) const ENDS: u8 = 1;
/// Nothing is recorded.
pub(crate) const NOTHING: u8 = 2;

/// The engine, which records so much.
#[derive(Clone)]
pub(crate) struct Hodei<const RECORDED: u8> {
    store: PgStore,
}

impl<const RECORDED: u8> Hodei<RECORDED> {
    async fn count(&self, state: State) -> Result<usize> {
        Ok(usize::try_from(self.store.counts(&Scope::All).await?.of(state))?)
    }

    async fn take(&self, jobs: Vec<NewJob>) -> Result<()> {
        let submitted = self.store.submit(jobs, SubmitOptions::each()).await?;
        let stored = submitted.replies.iter().all(|reply| reply.stored().is_some());
        if stored { Ok(()) } else { Err("a job is refused".into()) }
    }
}

async fn mark(context: Context<Arc<Marks>>, job: Numbered) {
    context.state().mark(job.number());
}

impl<const RECORDED: u8> Peer for Hodei<RECORDED> {
    type Workers = (Orchestrator, AgentHandle);

    async fn open(url: &str) -> Result<Self> {
        let recorded = match RECORDED {
            ALL => ChangeLog::All,
            ENDS => ChangeLog::TerminalOnly,
            _ => ChangeLog::Off,
        };
        Ok(Self { store: PgStore::builder(url).changes(recorded).connect().await? })
    }

    async fn submit(&self, n: usize) -> Result<()> {
        self.take(numbered(n..n + 1)).await
    }

    async fn submit_many(&self, jobs: std::ops::Range<usize>) -> Result<()> {
        self.take(numbered(jobs)).await
    }

    async fn start(&self, marks: Arc<Marks>) -> Result<Self::Workers> {
        let node = Orchestrator::builder().store(self.store.clone()).start().await?;
        let agent = Agent::builder(node.gateway()).slots(SLOTS).state(marks).handler(mark).start().await?;
        Ok((node, agent))
    }

    async fn settled(&self, _: usize) -> Result<usize> {
        self.count(State::Succeeded).await
    }

    async fn stop(&self, (node, agent): Self::Workers) -> Result<()> {
        agent.shutdown().await;
        node.shutdown().await;
        Ok(())
    }

    async fn waiting(&self) -> Result<usize> {
        self.count(State::Pending).await
    }

    async fn close(self) {
        self.store.close().await;
    }
}
