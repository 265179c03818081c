//! Holding a trail to its seals.

use std::fmt;

use hodei_core::{Result, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgPool, PgRow};

use super::chain::{Hash, Keys, ROOT, Texts, same};
use super::checkpoint::Checkpoint;
use crate::error::failed;

const OP: &str = "audit.verify";
/// How many rows are read at once.
const PAGE: i64 = 1_000;

const ROWS: &str = "SELECT seq, at, tenant, actor, action, subject, detail, link FROM hodei_audit.record
    WHERE ($1::int8 IS NULL OR seq > $1) ORDER BY seq LIMIT $2";

const CHECKPOINTS: &str = "SELECT count, at, head, seal FROM hodei_audit.checkpoint ORDER BY count";

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditReport {
    /// How many rows are sound, from the first on.
    pub rows: u64,
    /// How many checkpoints were held against them.
    pub checkpoints: u64,
    /// What is wrong first, by the order of the rows; nothing where the trail is sound.
    pub finding: Option<Finding>,
}

/// What is wrong with a trail, and where. Behind the first finding nothing can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The row is not what was written behind the row before it: it was changed, swapped with another, or made up.
    Altered {
        /// Its number.
        row: i64,
    },
    /// There is no such row, but later ones.
    Missing {
        /// Its number.
        row: i64,
    },
    /// There are no rows from this one on, but a checkpoint says that there were.
    CutOff {
        /// The first that is not there.
        row: i64,
        /// How many rows the checkpoint counts.
        checkpoint: u64,
    },
    /// The rows are in order, but not those that a checkpoint saw: the end was cut off and written anew.
    Rewritten {
        /// The last row that the checkpoint counts.
        row: i64,
    },
    /// A checkpoint is not sealed with the key of this trail.
    ForgedCheckpoint {
        /// How many rows it counts.
        checkpoint: u64,
    },
}

impl AuditReport {
    /// Says whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.finding.is_none()
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows are sound, {} checkpoints held", self.rows, self.checkpoints)?;
        match &self.finding {
            Some(finding) => write!(f, "; {finding}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered { row } => write!(f, "row {row} is not what was written"),
            Self::Missing { row } => write!(f, "row {row} is missing"),
            Self::CutOff { row, checkpoint } => {
                write!(f, "the rows from {row} on are missing; a checkpoint counts {checkpoint}")
            }
            Self::Rewritten { row } => write!(f, "row {row} is not the one that a checkpoint saw"),
            Self::ForgedCheckpoint { checkpoint } => {
                write!(f, "the checkpoint of {checkpoint} rows is not sealed with this key")
            }
        }
    }
}

/// Holds a trail to its seals and checkpoints, as of one moment.
pub(super) async fn verify(pool: &PgPool, keys: &Keys, kept: &[Checkpoint]) -> Result<AuditReport> {
    let mut tx = pool.begin().await.map_err(failed(OP))?;
    let as_of_now = sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    as_of_now.execute(&mut *tx).await.map_err(failed(OP))?;
    let mut checkpoints = checkpoints(&mut tx).await?;
    checkpoints.extend(kept);
    checkpoints.sort_by_key(|checkpoint| checkpoint.count);
    let mut walk = Walk { keys, checkpoints: &checkpoints, row: 0, link: ROOT, held: 0 };
    let finding = walk.whole(&mut tx).await?;
    let (rows, checkpoints) = (walk.row.unsigned_abs(), walk.held);
    tx.commit().await.map_err(failed(OP))?;
    Ok(AuditReport { rows, checkpoints, finding })
}

async fn checkpoints(connection: &mut PgConnection) -> Result<Vec<Checkpoint>> {
    let rows: Vec<(i64, i64, Hash, Hash)> =
        sqlx::query_as(CHECKPOINTS).fetch_all(connection).await.map_err(failed(OP))?;
    let checkpoint =
        |(count, at, head, seal)| Checkpoint { count, at: Timestamp::from_micros(at), head, seal };
    Ok(rows.into_iter().map(checkpoint).collect())
}

/// A walk along the rows, each held to the one before it.
struct Walk<'a> {
    keys: &'a Keys,
    /// Those that were not met yet, by their count.
    checkpoints: &'a [Checkpoint],
    /// The last sound row, and its link.
    row: i64,
    link: Hash,
    held: u64,
}

impl Walk<'_> {
    async fn whole(&mut self, connection: &mut PgConnection) -> Result<Option<Finding>> {
        if let Some(finding) = self.meet() {
            return Ok(Some(finding));
        }
        // From below every number that there may be.
        let mut after = None::<i64>;
        loop {
            let query = sqlx::query(ROWS).bind(after).bind(PAGE);
            let page = query.fetch_all(&mut *connection).await.map_err(failed(OP))?;
            if page.is_empty() {
                return Ok(self.end());
            }
            for row in &page {
                if let Some(finding) = self.step(row).map_err(failed(OP))?.or_else(|| self.meet()) {
                    return Ok(Some(finding));
                }
            }
            after = Some(self.row);
        }
    }

    /// Takes the next row in; what is wrong with it, if something is.
    fn step(&mut self, row: &PgRow) -> Result<Option<Finding>, sqlx::Error> {
        let seq: i64 = row.try_get(0)?;
        if seq > self.row + 1 {
            return Ok(Some(Finding::Missing { row: self.row + 1 }));
        }
        let texts = Texts {
            tenant: row.try_get(2)?,
            actor: row.try_get(3)?,
            action: row.try_get(4)?,
            subject: row.try_get(5)?,
            detail: row.try_get(6)?,
        };
        let link = self.keys.link(&self.link, seq, Timestamp::from_micros(row.try_get(1)?), texts);
        if seq != self.row + 1 || !same(&link, &row.try_get(7)?) {
            return Ok(Some(Finding::Altered { row: seq }));
        }
        (self.row, self.link) = (seq, link);
        Ok(None)
    }

    /// Holds the row to the checkpoints that end with it.
    fn meet(&mut self) -> Option<Finding> {
        while let Some((checkpoint, rest)) = self.checkpoints.split_first() {
            if checkpoint.count > self.row {
                return None;
            }
            if let Some(finding) = self.doubt(checkpoint) {
                return Some(finding);
            }
            self.held += 1;
            self.checkpoints = rest;
        }
        None
    }

    fn doubt(&self, checkpoint: &Checkpoint) -> Option<Finding> {
        if !checkpoint.is_sealed(self.keys) {
            return Some(Finding::ForgedCheckpoint { checkpoint: checkpoint.count() });
        }
        let meets = checkpoint.count == self.row && same(&checkpoint.head, &self.link);
        (!meets).then_some(Finding::Rewritten { row: checkpoint.count })
    }

    /// What is wrong when there are no more rows: the checkpoints that count more.
    fn end(&self) -> Option<Finding> {
        let checkpoint = self.checkpoints.first()?;
        if !checkpoint.is_sealed(self.keys) {
            return Some(Finding::ForgedCheckpoint { checkpoint: checkpoint.count() });
        }
        Some(Finding::CutOff { row: self.row + 1, checkpoint: checkpoint.count() })
    }
}
