//! Keeping the parts of the history: made ahead of time, dropped whole.

use std::time::Duration;

use async_trait::async_trait;
use hodei_core::job::State;
use hodei_core::store::{Retention, Term};
use hodei_core::{ErrorKind, Result};

use super::terms::{leads, still_leads};
use crate::ask;
use crate::error::failed;
use crate::work::{Verb, Work};

const OP: &str = "store.prune";

/// How many eras an age has: as much longer than asked is kept what goes with its era.
const ERAS: u32 = 8;
/// The longest era: 30 days.
const ERA_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How long anybody waits for a change of the parts at most: 100 ms for its locks and 100 ms more for what is done.
const BRIEFLY: &str =
    "SELECT set_config('lock_timeout', '100ms', true), set_config('statement_timeout', '200ms', true)";
/// How long reading a rest whole may take at most, for which nobody waits: 20 s. The server gives it up before the client
/// does.
const PROOF_MAX: Duration = Duration::from_secs(20);
/// The log does not wait either, which goes by the name; a vacuum gives way after a second.
const UNHURRIED: &str =
    "SELECT set_config('lock_timeout', '5s', true), set_config('statement_timeout', $1, true),
     set_config('application_name', 'hodei reserved', true)";

/// What the parts of the history need. Each is seen to by itself, so that one that fails for long holds up no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Eras ahead of time.
    Eras,
    /// Volumes of the log ahead of time, and none of which nothing is kept.
    Volumes,
    /// The next step of an era out of the history.
    Endings,
    /// The proof that nothing in a large rest belongs where the next part is to be.
    Proof,
}

impl Need {
    /// What may be needed at any time.
    pub(crate) const ALL: [Self; 3] = [Self::Eras, Self::Volumes, Self::Endings];
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tended {
    /// Nothing was to be done, or somebody was in the way, or the role may not make tables.
    Nothing,
    /// Something, and there may be more.
    Some,
    /// [`Need::Proof`] comes first.
    Unproved,
}

/// Does the next thing of a kind.
#[derive(Debug)]
pub(crate) struct Tend {
    pub(crate) need: Need,
    pub(crate) term: Term,
    pub(crate) retention: Retention,
}

#[async_trait]
impl Verb for Tend {
    type Reply = Tended;

    async fn run(&mut self, work: &mut Work<'_>) -> Result<Tended> {
        // Whoever proves holds the term up for nobody: a bound may be proved by two.
        let leads = match self.need {
            Need::Proof => still_leads(work, &self.term).await?,
            Need::Eras | Need::Volumes | Need::Endings => leads(work, &self.term).await?,
        };
        if !leads {
            return Ok(Tended::Nothing);
        }
        let age = |state| self.retention.age(state);
        let width = (age(State::Succeeded) / ERAS).min(ERA_MAX);
        let kept = |state| if work.inner().config.history { age(state) } else { Duration::ZERO };
        let cut = |state| work.now.saturating_sub(kept(state)).as_micros();
        let (jobs, failed_jobs) = (cut(State::Succeeded), cut(State::Failed));
        work.inner().trip();
        let paced = if self.need == Need::Proof {
            let most = PROOF_MAX.min(work.inner().config.statement_timeout / 2);
            ask::query(UNHURRIED).bind(format!("{}ms", most.as_millis().max(1)))
        } else {
            ask::query(BRIEFLY)
        };
        paced.execute(&mut *work.conn).await.map_err(failed(OP))?;
        work.inner().trip();
        let now = work.now.as_micros();
        let width = i64::try_from(width.as_micros()).unwrap_or(i64::MAX);
        let query = match self.need {
            Need::Eras => ask::scalar("SELECT hodei.add_era($1)").bind(width),
            Need::Volumes => ask::scalar("SELECT hodei.turn_volumes()"),
            Need::Endings => ask::scalar("SELECT hodei.tend($1, $2, $3, $4)")
                .bind(now)
                .bind(jobs)
                .bind(failed_jobs)
                .bind(width),
            Need::Proof => ask::scalar("SELECT hodei.prove()"),
        };
        let tended: Result<Option<bool>> = query.fetch_one(&mut *work.conn).await.map_err(failed(OP));
        match tended {
            Ok(Some(true)) => Ok(Tended::Some),
            Ok(Some(false)) => Ok(Tended::Nothing),
            Ok(None) => Ok(Tended::Unproved),
            // The transaction has failed, and is rolled back where it would be committed.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Locked | ErrorKind::Timeout | ErrorKind::PermissionDenied
                ) =>
            {
                Ok(Tended::Nothing)
            }
            Err(error) => Err(error),
        }
    }
}
