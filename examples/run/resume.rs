//! Which run to go on with.

use hodei_core::job::JobSummary;
use hodei_core::pipeline::Pipeline;
use hodei_core::store::{Consistency, Query, Scope};
use hodei_core::{PipelineId, Result};
use hodei_sched::Orchestrator;

use super::plan::FILE_LABEL;

/// What the store says of earlier runs.
#[derive(Debug)]
pub(crate) enum Earlier {
    /// There is nothing to go on with.
    None,
    /// The same file was not finished.
    Same(PipelineId),
    /// Another file was not finished.
    Other(PipelineId),
}

/// Looks at the last run in the store.
pub(crate) async fn earlier(hodei: &Orchestrator, hash: &str) -> Result<Earlier> {
    let last = hodei.query(&Scope::All, Query::new().limit(1)).await?;
    let Some((job, pipeline)) = last.jobs.first().and_then(|job| Some((job.id, job.pipeline?))) else {
        return Ok(Earlier::None);
    };
    let open = steps(hodei, pipeline).await?.iter().any(|step| !step.state.is_terminal());
    if !open {
        return Ok(Earlier::None);
    }
    let job = hodei.shared_store().get_many(&Scope::All, vec![job], Consistency::Latest).await?;
    let same = job.into_iter().flatten().any(|job| job.spec.labels().get(FILE_LABEL) == Some(hash));
    Ok(if same { Earlier::Same(pipeline) } else { Earlier::Other(pipeline) })
}

/// Submits the pipeline and returns its id.
pub(crate) async fn begin(hodei: &Orchestrator, pipeline: &Pipeline) -> Result<PipelineId> {
    hodei.submit_pipeline(pipeline).await
}

/// Gives up what is left of a run.
pub(crate) async fn give_up(hodei: &Orchestrator, pipeline: PipelineId) -> Result<()> {
    let open = steps(hodei, pipeline).await?;
    let open = open.into_iter().filter(|step| !step.state.is_terminal()).map(|step| step.id).collect();
    hodei.cancel_many(&Scope::All, open).await.map(drop)
}

/// Lists the steps of a run in the order of their submission.
pub(crate) async fn steps(hodei: &Orchestrator, pipeline: PipelineId) -> Result<Vec<JobSummary>> {
    let mut query = Query::new().pipeline(pipeline).oldest_first().limit(Query::LIMIT_MAX);
    let mut steps = Vec::new();
    loop {
        let page = hodei.query(&Scope::All, query.clone()).await?;
        steps.extend(page.jobs);
        match page.next {
            Some(next) => query = query.after(next),
            None => return Ok(steps),
        }
    }
}
