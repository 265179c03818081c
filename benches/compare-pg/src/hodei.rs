//! The load on Hodei: the scheduler, the agent and the store on PostgreSQL, with their defaults. Rows are kept unless said
//! otherwise, every transition is fenced, and where every change is recorded every job counts against a limit too.

use std::sync::Arc;

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_benches::hodei::{Numbered, numbered, numbered_under};
use hodei_benches::load::Marks;
use hodei_core::job::{NewJob, State};
use hodei_core::store::{ChangeLog, JobStore as _, Limit, Policies as _, Scope, SubmitOptions};
use hodei_core::{Name, Tenant};
use hodei_sched::Orchestrator;
use hodei_store_pg::PgStore;

use crate::peer::{Peer, Result};

/// How many jobs run at once.
const SLOTS: u32 = 1_024;

/// The key that all jobs count against, and how many of it may be leased at once: more than ever are.
const KEY: &str = "all";
const LIMIT: u32 = 1_000_000;

/// Every transition is recorded, and every job is counted against a limit.
pub(crate) const ALL: u8 = 0;
/// Submissions and ends are recorded.
pub(crate) const ENDS: u8 = 1;
/// Nothing is recorded.
pub(crate) const NOTHING: u8 = 2;
/// Nothing is recorded, and what has ended is not kept.
pub(crate) const BARE: u8 = 3;

/// The engine, which records so much.
#[derive(Clone)]
pub(crate) struct Hodei<const RECORDED: u8> {
    store: PgStore,
}

impl<const RECORDED: u8> Hodei<RECORDED> {
    async fn count(&self, state: State) -> Result<usize> {
        Ok(usize::try_from(self.store.counts(&Scope::All).await?.of(state))?)
    }

    fn jobs(numbers: std::ops::Range<usize>) -> Vec<NewJob> {
        if RECORDED == ALL { numbered_under(KEY, numbers) } else { numbered(numbers) }
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
        let store = PgStore::builder(url).changes(recorded).history(RECORDED != BARE).connect().await?;
        if RECORDED == ALL {
            store.set_limit(Limit::key(Tenant::default(), Name::literal(KEY), LIMIT)).await?;
        }
        Ok(Self { store })
    }

    async fn submit(&self, n: usize) -> Result<()> {
        self.take(Self::jobs(n..n + 1)).await
    }

    async fn submit_many(&self, jobs: std::ops::Range<usize>) -> Result<()> {
        self.take(Self::jobs(jobs)).await
    }

    async fn start(&self, marks: Arc<Marks>) -> Result<Self::Workers> {
        let node = Orchestrator::builder().store(self.store.clone()).start().await?;
        let agent = Agent::builder(node.gateway()).slots(SLOTS).state(marks).handler(mark).start().await?;
        Ok((node, agent))
    }

    async fn settled(&self, n: usize) -> Result<usize> {
        if RECORDED == BARE {
            let open = self.store.counts(&Scope::All).await?.open();
            return Ok(n.saturating_sub(usize::try_from(open)?));
        }
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
