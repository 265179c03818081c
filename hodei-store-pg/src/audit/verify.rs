//! Holding a trail to its links, seals and signatures.

use std::fmt;

use hodei_core::{Result, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};

use super::chain::{Hash, Keys, ROOT, Texts, link, same};
use super::checkpoint::Checkpoint;
use super::public::AuditPublicKey;
use crate::error::failed;

pub(super) const OP: &str = "audit.verify";
/// How many rows are read at once.
const PAGE: i64 = 1_000;

const ROWS: &str =
    "SELECT seq, at, tenant, actor, action, subject, detail, link, seal FROM hodei_audit.record
    WHERE ($1::int8 IS NULL OR seq > $1) ORDER BY seq LIMIT $2";

const CHECKPOINTS: &str = "SELECT count, at, head, signature FROM hodei_audit.checkpoint ORDER BY count";

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditReport {
    /// How many rows are sound, from the first on.
    pub rows: u64,
    /// How many of these a checkpoint counts. A signature vouches for them; for those behind them only the seals do, which
    /// nobody can tell who has the public key alone.
    pub signed: u64,
    /// How many checkpoints were held against them.
    pub checkpoints: u64,
    /// What is wrong first, by the order of the rows; nothing where the trail is sound.
    pub finding: Option<Finding>,
}

/// What is wrong with a trail, and where. Behind the first finding nothing can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The row is not what was written behind the row before it: it was changed, swapped with another, or made up. Where it
    /// was written anew together with all links behind it, this takes the key of the trail to tell.
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
    /// The rows are in order, but not those that a checkpoint saw: the end was cut off and written anew, or, where only the
    /// public key is at hand, a row since the checkpoint before was changed.
    Rewritten {
        /// The last row that the checkpoint counts.
        row: i64,
    },
    /// A checkpoint is not signed with the key of this trail.
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
        let Self { rows, signed, checkpoints, .. } = self;
        write!(f, "{rows} rows are sound, {signed} of them signed for, {checkpoints} checkpoints held")?;
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
                write!(f, "the checkpoint of {checkpoint} rows is not signed with this key")
            }
        }
    }
}

/// Holds a trail to its links and checkpoints, as of one moment, and to its seals where the keys are at hand.
pub(super) async fn verify(
    connection: &mut PgConnection,
    public: &AuditPublicKey,
    keys: Option<&Keys>,
    kept: &[Checkpoint],
) -> Result<AuditReport> {
    let mut tx = connection.begin().await.map_err(failed(OP))?;
    let as_of_now = sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    as_of_now.execute(&mut *tx).await.map_err(failed(OP))?;
    let mut checkpoints = checkpoints(&mut tx).await?;
    checkpoints.extend(kept);
    checkpoints.sort_by_key(|checkpoint| checkpoint.count);
    let mut walk = Walk { public, keys, checkpoints: &checkpoints, row: 0, link: ROOT, held: 0, signed: 0 };
    let finding = walk.whole(&mut tx).await?;
    let (rows, signed, checkpoints) = (walk.row.unsigned_abs(), walk.signed.unsigned_abs(), walk.held);
    tx.commit().await.map_err(failed(OP))?;
    Ok(AuditReport { rows, signed, checkpoints, finding })
}

async fn checkpoints(connection: &mut PgConnection) -> Result<Vec<Checkpoint>> {
    let rows: Vec<(i64, i64, Vec<u8>, Vec<u8>)> =
        sqlx::query_as(CHECKPOINTS).fetch_all(connection).await.map_err(failed(OP))?;
    // What is of another length was not signed, and neither are zeros.
    let checkpoint = |(count, at, head, signature): (i64, i64, Vec<u8>, Vec<u8>)| Checkpoint {
        count,
        at: Timestamp::from_micros(at),
        head: head.try_into().unwrap_or_default(),
        signature: signature.try_into().unwrap_or([0; 64]),
    };
    Ok(rows.into_iter().map(checkpoint).collect())
}

/// A walk along the rows, each held to the one before it.
struct Walk<'a> {
    public: &'a AuditPublicKey,
    /// Absent where the seals cannot be told.
    keys: Option<&'a Keys>,
    /// Those that were not met yet, by their count.
    checkpoints: &'a [Checkpoint],
    /// The last sound row, and its link.
    row: i64,
    link: Hash,
    held: u64,
    /// The last row that a checkpoint counts.
    signed: i64,
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
                let wrong = match self.step(row) {
                    // Somebody has taken the bounds of the columns away, and put something there that no writer does.
                    Err(sqlx::Error::ColumnDecode { .. }) => Some(Finding::Altered { row: self.row + 1 }),
                    stepped => stepped.map_err(failed(OP))?,
                };
                if let Some(finding) = wrong.or_else(|| self.meet()) {
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
        let link = link(&self.link, seq, Timestamp::from_micros(row.try_get(1)?), texts);
        let follows = seq == self.row + 1 && same(&link, &row.try_get(7)?);
        let seal: Hash = row.try_get(8)?;
        if !follows || self.keys.is_some_and(|keys| !same(&keys.seal(seq, &link), &seal)) {
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
            self.signed = self.row;
            self.checkpoints = rest;
        }
        None
    }

    fn doubt(&self, checkpoint: &Checkpoint) -> Option<Finding> {
        if !checkpoint.is_signed_by(self.public) {
            return Some(Finding::ForgedCheckpoint { checkpoint: checkpoint.count() });
        }
        let meets = checkpoint.count == self.row && same(&checkpoint.head, &self.link);
        (!meets).then_some(Finding::Rewritten { row: checkpoint.count })
    }

    /// What is wrong when there are no more rows: the checkpoints that count more.
    fn end(&self) -> Option<Finding> {
        let checkpoint = self.checkpoints.first()?;
        if !checkpoint.is_signed_by(self.public) {
            return Some(Finding::ForgedCheckpoint { checkpoint: checkpoint.count() });
        }
        Some(Finding::CutOff { row: self.row + 1, checkpoint: checkpoint.count() })
    }
}
