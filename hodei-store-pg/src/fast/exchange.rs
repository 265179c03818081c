//! Settling and claiming in one round trip.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hodei_core::job::{Cause, Epoch, Outcome, Output, State};
use hodei_core::store::{Applied, Change, ChangeLog, Exchange, Exchanged, Move, Transition};
use hodei_core::{Error, ErrorKind, Result, Timestamp};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::ask;
use crate::codec::{damaged, end_bytes};
use crate::error::failed;
use crate::inner::Inner;
use crate::names::{LaneRow, column};
use crate::record::{cause_of, distinct, id_of, state_of, uuid_of};
use crate::tell::Segment;
use crate::verbs::{ExchangeVerb, at, claimed, inputs_of, picks_of, pipeline_of};

const OP: &str = "store.exchange";

/// How often a call that was in another's way is made again.
const ATTEMPTS: u32 = 12;
/// What the server says when somebody waits for a job that ends: the call is made the long way.
const CHILDREN: &str = "HD001";

/// Transitions as the server takes them.
#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    epochs: Vec<i64>,
    kinds: Vec<i16>,
    rans: Vec<i64>,
    ends: Vec<Option<Vec<u8>>>,
}

impl Columns {
    /// Takes transitions that are all of the common kind, each of another job.
    fn of(transitions: &[Transition]) -> Option<Self> {
        let mut columns = Self::default();
        let mut seen = HashSet::with_capacity(transitions.len());
        for transition in transitions {
            let (kind, ran, end) = match &transition.step {
                Move::Started { lease: None } => (0, 0, None),
                Move::Finished(finish) if finish.spawn.is_empty() => {
                    let (state, bare) = match &finish.outcome {
                        Outcome::Succeeded => (State::Succeeded, true),
                        Outcome::Failed(_) => (State::Failed, false),
                        Outcome::Cancelled => (State::Cancelled, true),
                    };
                    let bare = bare && finish.output == Output::none() && finish.manifest.is_none();
                    let end = (!bare).then(|| {
                        end_bytes(&finish.outcome, &finish.output, finish.manifest.as_deref(), None)
                    });
                    (state as i16, i64::try_from(finish.ran.as_micros()).unwrap_or(i64::MAX / 2), end)
                }
                _ => return None,
            };
            if !seen.insert(transition.job) {
                return None;
            }
            columns.ids.push(uuid_of(transition.job));
            columns.epochs.push(transition.epoch.number().cast_signed());
            columns.kinds.push(kind);
            columns.rans.push(ran.min(i64::MAX / 2));
            columns.ends.push(end);
        }
        Some(columns)
    }
}

impl Inner {
    /// Settles and claims: in one round trip where everything is of the common kind.
    pub(crate) async fn exchange(self: &Arc<Self>, exchange: Exchange) -> Result<Exchanged> {
        let Some(columns) = Columns::of(&exchange.transitions) else { return self.long_way(exchange).await };
        let inner = Arc::clone(self);
        self.detached(OP, async move { inner.short_way(exchange, columns).await }).await
    }

    async fn long_way(self: &Arc<Self>, exchange: Exchange) -> Result<Exchanged> {
        let (done, changes) = self.write(OP, ExchangeVerb(exchange)).await?;
        Ok(Exchanged { changes, ..done })
    }

    async fn short_way(self: &Arc<Self>, exchange: Exchange, columns: Columns) -> Result<Exchanged> {
        let mut attempt = 0;
        let mut done = loop {
            attempt += 1;
            match self.exchange_once(&exchange, &columns).await {
                Err(error) if error.context("sqlstate") == Some(CHILDREN) => {
                    return self.long_way(exchange).await;
                }
                Err(error) if error.kind() == ErrorKind::Locked && attempt < ATTEMPTS => {
                    tokio::time::sleep(self.pause(attempt)).await;
                }
                done => break done?,
            }
        };
        // What the server did not make are repetitions, and what comes too late: the rules say which. It has claimed nothing
        // then, so that what is said of them is said before the claims.
        let made = |n: &usize| done.applied[*n] == Applied::Done;
        let left: Vec<usize> = (0..done.applied.len()).filter(|n| !made(n)).collect();
        if left.is_empty() {
            return Ok(done);
        }
        let transitions = left.iter().map(|n| exchange.transitions[*n].clone()).collect();
        let rest = Exchange { transitions, ..exchange };
        // What was made stands and tells so when it is sent again.
        let unknown = |error| Error::new(ErrorKind::Indeterminate, OP).source_error(error);
        let told = self.long_way(rest).await.map_err(unknown)?;
        for (n, applied) in left.into_iter().zip(told.applied) {
            done.applied[n] = applied;
        }
        done.changes.extend(told.changes);
        (done.claimed, done.owner_lost, done.next_due) = (told.claimed, told.owner_lost, told.next_due);
        Ok(done)
    }

    /// Makes the call. Transitions that the server did not make are `NotFound`.
    async fn exchange_once(self: &Arc<Self>, exchange: &Exchange, columns: &Columns) -> Result<Exchanged> {
        let mut conn = self.pools.verbs.acquire(OP).await?;
        let picks = picks_of(&self.names, &mut conn, &exchange.picks).await?;
        let ticket = self.teller.begin();
        let log = recorded(self.config.change_log);
        let query = ask::query(
            "SELECT * FROM hodei.exchange($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(exchange.owner.owner.name().as_str())
        .bind(exchange.owner.incarnation.cast_signed())
        .bind(self.node)
        .bind(log)
        .bind(&columns.ids)
        .bind(&columns.epochs)
        .bind(&columns.kinds)
        .bind(&columns.rans)
        .bind(&columns.ends)
        .bind(picks.lanes)
        .bind(picks.ranks)
        .bind(picks.numbers)
        .bind(self.config.history);
        let (mut conn, rows) = self.statement(OP, conn, query).await?;
        let (mut moves, mut claims, mut done) = (Vec::new(), Vec::new(), Exchanged::default());
        let mut now = Timestamp::from_micros(0);
        for row in rows {
            match column::<i16>(&row, at::WHAT)? {
                1 => moves.push(row),
                2 => claims.push(row),
                _ => {
                    done.owner_lost = column::<i16>(&row, at::STATE)? == 0;
                    done.next_due = column::<Option<i64>>(&row, at::ELIGIBLE_AT)?.map(Timestamp::from_micros);
                    now = Timestamp::from_micros(column(&row, at::MOVED_AT)?);
                }
            }
        }
        let mut nos = Vec::with_capacity(moves.len());
        for row in &moves {
            nos.push(column(row, at::LANE)?);
        }
        let lanes = self.names.load_lanes(&mut conn, &distinct(nos)).await?;
        done.applied = vec![Applied::NotFound; columns.ids.len()];
        let mut readied = false;
        let mut segments: Vec<Segment> = Vec::new();
        for row in &moves {
            let (ord, limited, place, change) = moved(&lanes, row, now)?;
            if let Some(applied) = ord.checked_sub(1).and_then(|n| done.applied.get_mut(n)) {
                *applied = Applied::Done;
            }
            readied |= (limited && change.to.is_terminal()) || change.to == State::Pending;
            match segments.last_mut() {
                Some(last) if last.at == place => last.changes.push(change),
                _ => segments.push(Segment { at: place, changes: vec![change] }),
            }
        }
        let (jobs, of_claims) = claimed(&picks.rows, &claims, &exchange.owner)?;
        segments.extend(of_claims);
        self.wrote(2 * (moves.len() + claims.len()) as u64);
        let has_parents = jobs.iter().any(|job| !job.parents.is_empty());
        if has_parents {
            self.trip();
        }
        // It is committed: without its reply the caller asks for its leases.
        let unknown = |error| Error::new(ErrorKind::Indeterminate, OP).source_error(error);
        done.claimed = self.in_time(OP, inputs_of(&mut conn, jobs)).await.map_err(unknown)?;
        conn.clean().await.map_err(failed(OP)).map_err(unknown)?;
        done.changes = self.committed(ticket, segments, readied).await;
        Ok(done)
    }
}

/// Which changes are recorded, as the server takes it.
fn recorded(log: ChangeLog) -> i16 {
    match log {
        ChangeLog::All => 0,
        ChangeLog::TerminalOnly => 1,
        ChangeLog::Off => 2,
    }
}

/// Reads a transition that was made: its number, whether its job counts against limits, where it stands in the log.
fn moved(
    lanes: &HashMap<i32, Arc<LaneRow>>,
    row: &PgRow,
    now: Timestamp,
) -> Result<(usize, bool, (i64, i64), Change)> {
    let lane = lanes.get(&column(row, at::LANE)?).ok_or_else(|| damaged("a job without a lane"))?;
    let cause: Cause = cause_of(column(row, at::GENERATION)?)?;
    let change = Change {
        job: id_of(column(row, at::ID)?),
        tenant: lane.lane.tenant.clone(),
        queue: Some(lane.lane.queue.clone()),
        pipeline: pipeline_of(row)?,
        version: column::<i32>(row, at::VERSION)?.cast_unsigned(),
        from: Some(state_of(column(row, at::STATE)?)?),
        to: state_of(column(row, at::LOST)?)?,
        cause,
        attempt: column::<i32>(row, at::ATTEMPT)?.cast_unsigned(),
        epoch: Epoch::from_number(column::<i64>(row, at::EPOCH)?.cast_unsigned()),
        at: now,
    };
    let ord = usize::try_from(column::<i32>(row, at::ORD)?).unwrap_or_default();
    Ok((ord, !lane.limits.is_empty(), (column(row, at::POS)?, column(row, at::NO)?), change))
}
