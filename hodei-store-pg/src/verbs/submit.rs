//! Submissions of any kind.

use async_trait::async_trait;
use hodei_core::Result;
use hodei_core::job::NewJob;
use hodei_core::store::{SubmitOptions, Submitted};

use crate::inner::Inner;
use crate::pool::Conn;
use crate::work::{Verb, Work};

/// Makes the lanes of jobs; not of those that are refused anyway.
pub(crate) async fn make_lanes(conn: &mut Conn, jobs: &[NewJob], most: Option<u32>) -> Result<()> {
    let names = conn.names();
    for job in jobs.iter().filter(|job| job.check().is_ok()) {
        names.make_lane(conn, &job.tenant, &job.spec, most).await?;
    }
    Ok(())
}

/// Stores jobs.
#[derive(Debug)]
pub(crate) struct Submit {
    pub(crate) jobs: Vec<NewJob>,
    pub(crate) options: SubmitOptions,
}

#[async_trait]
impl Verb for Submit {
    type Reply = Vec<Submitted>;

    async fn prepare(&mut self, inner: &Inner, conn: &mut Conn) -> Result<()> {
        make_lanes(conn, &self.jobs, Some(inner.config.tenant_max_lanes)).await
    }

    async fn run(&mut self, work: &mut Work<'_>) -> Result<Vec<Submitted>> {
        work.submit(&self.jobs, self.options).await
    }
}
