//! Jobs that failed for good, and their way back.

use hodei_core::Result;
use hodei_core::job::{FailureClass, Job, Outcome, State};
use hodei_core::store::{Consistency, Cursor, Query, Redriven, Scope};

use super::handle::Orchestrator;

/// Which dead letters: what a query lets through, of one class of failures where one is named.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    query: Query,
    class: Option<FailureClass>,
}

impl DeadLetters {
    /// Every job that failed, newest first, 100 a page.
    #[must_use]
    pub fn all() -> Self {
        Self::of(Query::new())
    }

    /// What a query lets through of the jobs that failed. Its state is of no account.
    #[must_use]
    pub fn of(query: Query) -> Self {
        Self { query: query.state(State::Failed), class: None }
    }

    /// Lets through what failed in one way only.
    #[must_use]
    pub fn class(mut self, class: FailureClass) -> Self {
        self.class = Some(class);
        self
    }

    fn lets_through(&self, job: &Job) -> bool {
        match job.outcome() {
            Some(Outcome::Failed(failure)) => self.class.is_none_or(|class| class == failure.class),
            _ => false,
        }
    }
}

impl Orchestrator {
    /// Lists dead letters in full, a page at a time, with the cursor of the next page. A page may hold fewer than its
    /// limit, or none, and not be the last.
    ///
    /// # Errors
    ///
    /// As [`Orchestrator::query`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only reads.
    pub async fn dead_letters(
        &self,
        scope: &Scope,
        which: &DeadLetters,
        after: Option<Cursor>,
    ) -> Result<(Vec<Job>, Option<Cursor>)> {
        let query = Query { after, ..which.query.clone() };
        let page = self.query(scope, query).await?;
        let ids = page.jobs.iter().map(|job| job.id).collect();
        let jobs = self.store().get_many(scope, ids, Consistency::Latest).await?;
        let letters = jobs.into_iter().flatten().filter(|job| which.lets_through(job)).collect();
        Ok((letters, page.next))
    }

    /// Sends dead letters round again, at most so many, a page of them in a transaction, and returns how many went.
    ///
    /// A job that failed because a parent had failed is sent round as it is: it runs although its parent did not succeed.
    /// To repeat a part of a pipeline, use [`Orchestrator::resume_pipeline`].
    ///
    /// # Errors
    ///
    /// What the store says; those of the pages before have gone.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have sent some; call it again for the rest.
    pub async fn redrive_dead_letters(&self, scope: &Scope, which: &DeadLetters, most: u64) -> Result<u64> {
        let (mut gone, mut after) = (0, None);
        while gone < most {
            let (letters, next) = self.dead_letters(scope, which, after).await?;
            let left = usize::try_from(most - gone).unwrap_or(usize::MAX);
            let ids: Vec<_> = letters.into_iter().map(|job| job.id).take(left).collect();
            if !ids.is_empty() {
                let replies = self.redrive(scope, ids).await?;
                gone += replies.iter().filter(|reply| **reply == Redriven::Done).count() as u64;
            }
            match next {
                Some(_) => after = next,
                None => break,
            }
        }
        Ok(gone)
    }
}
