//! Settling and claiming in one round trip.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hodei_core::job::{Cause, Epoch, Outcome, Output, State};
use hodei_core::map::JobSet;
use hodei_core::store::{Applied, Change, ChangeLog, Exchange, Exchanged, Move, Transition};
use hodei_core::{Error, ErrorKind, Result, Timestamp};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::frontier::Place;
use crate::ask;
use crate::codec::{damaged, end_bytes};
use crate::detached::Detached;
use crate::error::failed;
use crate::inner::Inner;
use crate::names::{LaneRow, column};
use crate::record::{cause_of, distinct, id_of, state_of, uuid_of};
use crate::tell::Segment;
use crate::verbs::{ExchangeVerb, at, claimed, inputs_of, picks_of, pipeline_of, what};

const OP: &str = "store.exchange";

/// How often a call that was in another's way is made again.
const ATTEMPTS: u32 = 12;
/// From how many transitions and claims on they are made side by side, and apart from transitions that are not common.
const MUCH: usize = 64;
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
    /// Takes those transitions that are of the common kind and alone of their job, and returns the places of the others.
    fn of(transitions: &[Transition]) -> (Self, Vec<usize>) {
        let (mut columns, mut others) = (Self::default(), Vec::new());
        let (mut seen, mut again) = (JobSet::default(), JobSet::default());
        for transition in transitions {
            if !seen.insert(transition.job) {
                again.insert(transition.job);
            }
        }
        for (n, transition) in transitions.iter().enumerate() {
            let (kind, ran, end) = match &transition.step {
                _ if again.contains(&transition.job) => {
                    others.push(n);
                    continue;
                }
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
                _ => {
                    others.push(n);
                    continue;
                }
            };
            columns.ids.push(uuid_of(transition.job));
            columns.epochs.push(transition.epoch.number().cast_signed());
            columns.kinds.push(kind);
            columns.rans.push(ran.min(i64::MAX / 2));
            columns.ends.push(end);
        }
        (columns, others)
    }
}

/// One statement's part of an exchange.
struct Half {
    done: Exchanged,
    segments: Vec<Segment>,
}

impl Inner {
    /// Settles and claims: in one round trip where everything is of the common kind and not much; in two side by side
    /// where it is much; those of other kinds behind them, the long way.
    pub(crate) async fn exchange(self: &Arc<Self>, exchange: Exchange) -> Result<Exchanged> {
        let (columns, others) = Columns::of(&exchange.transitions);
        if !others.is_empty() && columns.ids.len() < MUCH {
            return self.long_way(exchange).await;
        }
        let inner = Arc::clone(self);
        Detached::new(async move {
            if !others.is_empty() {
                return inner.apart(exchange, columns, &others).await;
            }
            let asked: u64 = exchange.picks.iter().map(|pick| u64::from(pick.n)).sum();
            let much = exchange.transitions.len() >= MUCH && asked >= MUCH as u64;
            let free = || {
                let tight = inner.tight.load(Ordering::Relaxed)
                    && !inner.pools.latest.names().are_free(&exchange.picks);
                !inner.limited.load(Ordering::Relaxed) && !tight
            };
            if much && inner.config.connections > 1 && free() {
                return inner.side_by_side(exchange, columns).await;
            }
            inner.short_way(exchange, columns).await.map(Half::told)
        })
        .await
    }

    async fn long_way(self: &Arc<Self>, exchange: Exchange) -> Result<Exchanged> {
        let (done, changes) = self.write(OP, ExchangeVerb::new(exchange)).await?;
        Ok(Exchanged { changes, ..done })
    }

    /// Makes the transitions of the common kind, and then the others and the claims, the long way.
    async fn apart(
        self: &Arc<Self>,
        exchange: Exchange,
        columns: Columns,
        others: &[usize],
    ) -> Result<Exchanged> {
        let Exchange { owner, transitions, picks } = exchange;
        let mut applied = vec![Applied::NotFound; transitions.len()];
        let (mut common, mut rest, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (n, transition) in transitions.into_iter().enumerate() {
            if others.binary_search(&n).is_ok() {
                rest.push(transition);
            } else {
                common.push(transition);
                places.push(n);
            }
        }
        let settling = Exchange { owner: owner.clone(), transitions: common, picks: Vec::new() };
        let settled = self.short_way(settling, columns).await?.told();
        let told = self.long_way(Exchange { owner, transitions: rest, picks }).await.map_err(unknown)?;
        places.into_iter().zip(settled.applied).for_each(|(n, one)| applied[n] = one);
        Ok(completed(Exchanged { applied, ..settled }, others, told))
    }

    /// Settles on one connection and claims on another. No job is in both: what ends here is not claimed any more, and
    /// what is claimed had been given up by whoever held it.
    async fn side_by_side(self: &Arc<Self>, exchange: Exchange, columns: Columns) -> Result<Exchanged> {
        let Exchange { owner, transitions, picks } = exchange;
        let settling = Exchange { owner: owner.clone(), transitions, picks: Vec::new() };
        let claiming = Exchange { owner, transitions: Vec::new(), picks };
        let halves =
            tokio::join!(self.short_way(settling, columns), self.short_way(claiming, Columns::default()));
        match halves {
            (Ok(settled), Ok(claimed)) => Ok(settled.with(claimed).told()),
            // Nothing has happened only where that is so of both.
            (Err(error), Err(other)) => {
                Err(if other.kind() == ErrorKind::Indeterminate { other } else { error })
            }
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(unknown(error)),
        }
    }

    async fn short_way(self: &Arc<Self>, exchange: Exchange, columns: Columns) -> Result<Half> {
        let mut attempt = 0;
        let half = loop {
            attempt += 1;
            // What came to nothing is made again as by one among many, who waits for nobody.
            match self.exchange_once(&exchange, &columns, attempt == 1).await {
                Err(error) if error.context("sqlstate") == Some(CHILDREN) => {
                    let done = self.long_way(exchange).await?;
                    return Ok(Half { done, segments: Vec::new() });
                }
                Err(error) if error.kind() == ErrorKind::Locked && attempt < ATTEMPTS => {
                    self.step_back(&error, attempt).await;
                }
                half => break half?,
            }
        };
        // What the server did not make are repetitions, and what comes too late: the rules say which. It has claimed nothing
        // then, so that what is said of them is said before the claims.
        let applied = &half.done.applied;
        let left: Vec<usize> = (0..applied.len()).filter(|n| applied[*n] != Applied::Done).collect();
        if left.is_empty() {
            return Ok(half);
        }
        let transitions = left.iter().map(|n| exchange.transitions[*n].clone()).collect();
        let rest = Exchange { transitions, ..exchange };
        // What was made stands and tells so when it is sent again.
        let told = self.long_way(rest).await.map_err(unknown)?;
        Ok(Half { done: completed(half.told(), &left, told), segments: Vec::new() })
    }

    /// Makes the call. Transitions that the server did not make are `NotFound`.
    async fn exchange_once(
        self: &Arc<Self>,
        exchange: &Exchange,
        columns: &Columns,
        alone: bool,
    ) -> Result<Half> {
        let mut conn = self.pools.verbs.acquire(OP).await?;
        let names = conn.names();
        let picks = picks_of(&names, &mut conn, &exchange.picks).await?;
        let starts = self.frontier.starts(&picks);
        let ticket = self.teller.begin();
        let log = recorded(self.config.change_log);
        let query = ask::query(
            "SELECT * FROM hodei.exchange($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
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
        .bind(&picks.lanes)
        .bind(&picks.ranks)
        .bind(&picks.numbers)
        .bind(&starts.ranks)
        .bind(&starts.since)
        .bind(self.config.history)
        .bind(alone);
        let (mut conn, rows) = self.statement(OP, conn, query).await?;
        let Answer { moves, claims, places, mut done, now, wide, room } = Answer::of(rows)?;
        self.frontier.ended(&picks, &starts, places);
        let lanes = names.load_lanes(&mut conn, &lanes_of(&moves)?).await?;
        let mut settled = Settled::of(&exchange.transitions, now);
        for row in &moves {
            settled.take(&lanes, row)?;
        }
        self.limited.store(wide > 0, Ordering::Relaxed);
        if !picks.lanes.is_empty() {
            let asked: i64 = picks.numbers.iter().sum();
            self.tight.store(room.is_some_and(|room| i64::from(room) < asked), Ordering::Relaxed);
        }
        // A full limit that has room again lets somebody else through.
        let readied = settled.readied || (settled.ended && wide == 2);
        let mut segments = settled.segments;
        done.applied = settled.applied;
        let (jobs, of_claims) = claimed(&picks, &claims, &exchange.owner, now)?;
        segments.extend(of_claims);
        self.wrote(2 * segments.iter().map(|segment| segment.changes.len() as u64).sum::<u64>());
        let has_parents = jobs.iter().any(|job| !job.parents.is_empty());
        if has_parents {
            self.trip();
        }
        // It is committed: without its reply the caller asks for its leases.
        done.claimed = self.in_time(OP, inputs_of(&mut conn, jobs)).await.map_err(unknown)?;
        conn.clean().await.map_err(failed(OP)).map_err(unknown)?;
        self.announcer.claimed(done.claimed.len());
        self.tell(ticket, &segments, readied).await;
        Ok(Half { done, segments })
    }
}

impl Half {
    /// Adds the claims of another.
    fn with(mut self, mut claims: Self) -> Self {
        self.done.claimed = claims.done.claimed;
        self.done.owner_lost = claims.done.owner_lost;
        self.done.next_due = claims.done.next_due;
        self.segments.append(&mut claims.segments);
        self.segments.sort_by_key(|segment| segment.at);
        self
    }

    fn told(mut self) -> Exchanged {
        self.done.changes.extend(self.segments.into_iter().flat_map(|segment| segment.changes));
        self.done
    }
}

/// Adds to what was made the short way what became of the transitions that were left, and the claims behind them.
fn completed(made: Exchanged, left: &[usize], told: Exchanged) -> Exchanged {
    let Exchanged { mut applied, mut changes, .. } = made;
    left.iter().zip(told.applied).for_each(|(n, one)| applied[*n] = one);
    changes.extend(told.changes);
    Exchanged { applied, changes, ..told }
}

/// The error of a call of which some was done: the caller asks for its leases, and sends its transitions again.
fn unknown(error: Error) -> Error {
    Error::new(ErrorKind::Indeterminate, OP).source_error(error)
}

/// Which changes are recorded, as the server takes it.
fn recorded(log: ChangeLog) -> i16 {
    match log {
        ChangeLog::All => 0,
        ChangeLog::TerminalOnly => 1,
        ChangeLog::Off => 2,
    }
}

/// What the server says of an exchange.
#[derive(Default)]
struct Answer {
    moves: Vec<PgRow>,
    claims: Vec<PgRow>,
    /// Where in its lane each claimed job was.
    places: Vec<(i32, Place)>,
    done: Exchanged,
    now: Timestamp,
    /// What kinds of limits there are beside those of keys, as `hodei.hold_limits` says it.
    wide: i16,
    /// How many more leases the limits of keys let through, where the picks have any.
    room: Option<i32>,
}

impl Answer {
    fn of(rows: Vec<PgRow>) -> Result<Self> {
        let mut all = Self::default();
        for row in rows {
            match column::<i16>(&row, at::WHAT)? {
                what::MOVED | what::SUCCEEDED => all.moves.push(row),
                what::CLAIMED => {
                    let place = (column(&row, at::RANK)?, column(&row, at::ELIGIBLE_AT)?);
                    all.places.push((column(&row, at::LANE)?, place));
                    all.claims.push(row);
                }
                what::CLAIMS => all.claims.push(row),
                _ => {
                    all.done.owner_lost = column::<i16>(&row, at::STATE)? == 0;
                    let due = column::<Option<i64>>(&row, at::ELIGIBLE_AT)?;
                    all.done.next_due = due.map(Timestamp::from_micros);
                    all.now = Timestamp::from_micros(column(&row, at::MOVED_AT)?);
                    all.wide = column::<Option<i16>>(&row, at::LOST)?.unwrap_or(0);
                    all.room = column(&row, at::VERSION)?;
                }
            }
        }
        Ok(all)
    }
}

/// The lanes of the jobs that moved.
fn lanes_of(moves: &[PgRow]) -> Result<Vec<i32>> {
    let mut lanes = Vec::new();
    for row in moves {
        lanes.extend(column::<Option<i32>>(row, at::LANE)?);
        lanes.extend(column::<Option<Vec<i32>>>(row, at::LANES)?.unwrap_or_default());
    }
    Ok(distinct(lanes))
}

/// What became of transitions.
struct Settled<'a> {
    transitions: &'a [Transition],
    now: Timestamp,
    applied: Vec<Applied>,
    segments: Vec<Segment>,
    /// The numbers of the transitions of the last segment.
    ords: Vec<i32>,
    /// Whether anything can be claimed now that could not be before.
    readied: bool,
    /// Whether a lease has ended.
    ended: bool,
}

impl<'a> Settled<'a> {
    /// What the server says nothing of is `NotFound`.
    fn of(transitions: &'a [Transition], now: Timestamp) -> Self {
        let applied = vec![Applied::NotFound; transitions.len()];
        Self {
            transitions,
            now,
            applied,
            segments: Vec::new(),
            ords: Vec::new(),
            readied: false,
            ended: false,
        }
    }

    /// Takes a row of the server, which tells of one that was made, or of many that are alike. A row that does not say
    /// where it stands in the log stands behind the one before.
    fn take(&mut self, lanes: &HashMap<i32, Arc<LaneRow>>, row: &PgRow) -> Result<()> {
        let place = column::<Option<i64>>(row, at::POS)?.zip(column::<Option<i64>>(row, at::NO)?);
        if let Some(at) = place.filter(|place| self.segments.last().is_none_or(|last| last.at != *place)) {
            self.segments.push(Segment { at, changes: Vec::new() });
            self.ords.clear();
        }
        if column::<i16>(row, at::WHAT)? == what::MOVED {
            let lane = lane_of(lanes, column(row, at::LANE)?)?;
            let change = moved(lane, row, self.now)?;
            return self.add(column(row, at::ORD)?, lane, change);
        }
        let ords: Vec<i32> = column::<Option<_>>(row, at::ORDS)?.unwrap_or_default();
        let nos: Vec<i32> = column::<Option<_>>(row, at::LANES)?.unwrap_or_default();
        for (ord, no) in ords.into_iter().zip(nos) {
            let lane = lane_of(lanes, no)?;
            let change = succeeded(lane, self.transition(ord)?, self.now);
            self.add(ord, lane, change)?;
        }
        Ok(())
    }

    fn transition(&self, ord: i32) -> Result<&'a Transition> {
        let place = usize::try_from(ord).ok().and_then(|ord| ord.checked_sub(1));
        place.and_then(|n| self.transitions.get(n)).ok_or_else(|| damaged("a transition of nobody"))
    }

    fn add(&mut self, ord: i32, lane: &LaneRow, change: Change) -> Result<()> {
        if let Some(applied) = usize::try_from(ord - 1).ok().and_then(|n| self.applied.get_mut(n)) {
            *applied = Applied::Done;
        }
        self.ended |= change.to.is_terminal();
        self.readied |= (!lane.limits.is_empty() && change.to.is_terminal()) || change.to == State::Pending;
        let last = self.segments.last_mut().ok_or_else(|| damaged("a change without a place"))?;
        // In the order of the transitions, as the log has them.
        let place = self.ords.partition_point(|before| *before <= ord);
        self.ords.insert(place, ord);
        last.changes.insert(place, change);
        Ok(())
    }
}

fn lane_of(lanes: &HashMap<i32, Arc<LaneRow>>, no: i32) -> Result<&LaneRow> {
    lanes.get(&no).map(|lane| &**lane).ok_or_else(|| damaged("a job without a lane"))
}

/// The change of a job that succeeded in its first run, of which nobody told before its end, in no pipeline.
fn succeeded(lane: &LaneRow, transition: &Transition, now: Timestamp) -> Change {
    Change {
        job: transition.job,
        tenant: lane.lane.tenant.clone(),
        queue: Some(lane.lane.queue.clone()),
        pipeline: None,
        version: 3,
        from: Some(State::Scheduled),
        to: State::Succeeded,
        cause: Cause::Succeeded,
        attempt: 1,
        epoch: transition.epoch,
        at: now,
    }
}

/// Reads a transition that was made.
fn moved(lane: &LaneRow, row: &PgRow, now: Timestamp) -> Result<Change> {
    Ok(Change {
        job: id_of(column(row, at::ID)?),
        tenant: lane.lane.tenant.clone(),
        queue: Some(lane.lane.queue.clone()),
        pipeline: pipeline_of(row)?,
        version: column::<i32>(row, at::VERSION)?.cast_unsigned(),
        from: Some(state_of(column(row, at::STATE)?)?),
        to: state_of(column(row, at::LOST)?)?,
        cause: cause_of(column(row, at::GENERATION)?)?,
        attempt: column::<i32>(row, at::ATTEMPT)?.cast_unsigned(),
        epoch: Epoch::from_number(column::<i64>(row, at::EPOCH)?.cast_unsigned()),
        at: now,
    })
}
