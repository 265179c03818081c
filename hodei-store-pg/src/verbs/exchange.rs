//! Settling and claiming, of any kind: by the rules of core.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use hodei_core::job::{NewJob, Priority, rules};
use hodei_core::store::{Applied, Claimed, Exchange, Exchanged, Move, Pick, Transition};
use hodei_core::{JobId, Result, Timestamp};
use sqlx::postgres::PgConnection;

use super::claim::{claimed, inputs_of};
use super::submit::make_lanes;
use crate::ask;
use crate::error::failed;
use crate::inner::Inner;
use crate::names::LaneRow;
use crate::pool::Conn;
use crate::work::{Verb, Work};

const OP: &str = "store.exchange";

/// Settles, then claims.
#[derive(Debug)]
pub(crate) struct ExchangeVerb {
    exchange: Exchange,
    /// Whether it was not tried yet: what came to nothing is made again as by one among many.
    alone: bool,
}

impl ExchangeVerb {
    pub(crate) fn new(exchange: Exchange) -> Self {
        Self { exchange, alone: true }
    }
}

#[async_trait]
impl Verb for ExchangeVerb {
    type Reply = Exchanged;

    async fn prepare(&mut self, _: &Inner, conn: &mut Conn) -> Result<()> {
        make_spawned(conn, &self.exchange.transitions).await
    }

    async fn run(&mut self, work: &mut Work<'_>) -> Result<Exchanged> {
        let (exchange, alone) = (&self.exchange, std::mem::replace(&mut self.alone, false));
        let at_home = is_at_home(work, exchange).await?;
        let picks = picks_of(&Arc::clone(&work.at.names), &mut *work.conn, &exchange.picks).await?;
        let applied = if at_home {
            settle(work, &exchange.transitions, &picks.lanes).await?
        } else {
            refuse(work, &exchange.transitions).await?
        };
        work.flush().await?;
        promote(work).await?;
        let owner = living(work, exchange).await?.filter(|_| at_home);
        let mut taken = Vec::new();
        if let Some(holder) = owner.filter(|_| !picks.lanes.is_empty()) {
            taken = claim(work, exchange, &picks, (holder, alone)).await?;
        }
        Ok(Exchanged {
            applied,
            claimed: taken,
            owner_lost: owner.is_none(),
            next_due: next_due(work).await?,
            ..Exchanged::default()
        })
    }
}

/// Settles, and claims nothing.
#[derive(Debug)]
pub(crate) struct Settle(pub(crate) Vec<Transition>);

#[async_trait]
impl Verb for Settle {
    type Reply = Vec<Applied>;

    async fn prepare(&mut self, _: &Inner, conn: &mut Conn) -> Result<()> {
        make_spawned(conn, &self.0).await
    }

    async fn run(&mut self, work: &mut Work<'_>) -> Result<Vec<Applied>> {
        if !work.inner().lives_on(work.at.home) {
            return refuse(work, &self.0).await;
        }
        settle(work, &self.0, &[]).await
    }
}

/// Makes the lanes of what runs spawn with their ends.
async fn make_spawned(conn: &mut Conn, transitions: &[Transition]) -> Result<()> {
    for transition in transitions {
        if let Move::Finished(finish) = &transition.step {
            // They come past the door, where bounds are held.
            make_lanes(conn, &finish.spawn, None).await?;
        }
    }
    Ok(())
}

/// Settles. Whoever claims from lanes afterwards names them.
async fn settle(work: &mut Work<'_>, transitions: &[Transition], lanes: &[i32]) -> Result<Vec<Applied>> {
    let ids: Vec<JobId> = transitions.iter().map(|transition| transition.job).collect();
    let spawned = transitions.iter().flat_map(|transition| match &transition.step {
        Move::Finished(finish) => &finish.spawn[..],
        _ => &[],
    });
    let lasts = work.hold_sequences(spawned).await?;
    let handed = transitions.iter().filter_map(|transition| match &transition.step {
        Move::Started { lease } => lease.as_ref(),
        _ => None,
    });
    work.hold_owners(handed).await?;
    work.load_with_limits(&[&ids[..], &lasts].concat(), lanes).await?;
    if work.now == Timestamp::from_micros(0) {
        work.look_at_the_clock().await?;
    }
    work.load_children(&ids).await?;
    let mut applied = Vec::with_capacity(ids.len());
    for transition in transitions {
        applied.push(apply(work, transition).await?);
    }
    Ok(applied)
}

/// Applies nothing of what an owner reports that holds nothing here.
async fn refuse(work: &mut Work<'_>, transitions: &[Transition]) -> Result<Vec<Applied>> {
    let ids: Vec<JobId> = transitions.iter().map(|transition| transition.job).collect();
    work.load(&ids).await?;
    work.look_at_the_clock().await?;
    let refused = transitions.iter().map(|transition| match work.job(transition.job) {
        Some(job) => Applied::LeaseLost { held: transition.epoch, current: job.epoch },
        None => Applied::NotFound,
    });
    Ok(refused.collect())
}

async fn apply(work: &mut Work<'_>, transition: &Transition) -> Result<Applied> {
    let now = work.now;
    let applied = work.update(transition.job, |job| {
        let (applied, change) = rules::apply(job, transition, now);
        ((applied, change.is_some() && job.state.is_terminal()), change)
    });
    let Some((applied, ended)) = applied else { return Ok(Applied::NotFound) };
    // First the children that wait, then what is spawned: a spawned child of this job is told as it is admitted, and must
    // not be told a second time.
    if ended {
        work.cascade(transition.job).await?;
    }
    if let (Applied::Done, Move::Finished(finish)) = (applied, &transition.step)
        && !finish.spawn.is_empty()
        && let Some(tenant) = work.job(transition.job).map(|job| job.tenant.clone())
    {
        let own: Vec<NewJob> = finish.spawn.iter().filter(|new| new.tenant == tenant).cloned().collect();
        work.submit_inside(&own).await?;
    }
    Ok(applied)
}

async fn promote(work: &mut Work<'_>) -> Result<()> {
    work.inner().trip();
    ask::query("SELECT hodei.promote($1)")
        .bind(work.now.as_micros())
        .execute(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
    Ok(())
}

/// Says whether what an owner was told is good here: whether it is known on the server's course of history.
async fn is_at_home(work: &mut Work<'_>, exchange: &Exchange) -> Result<bool> {
    work.inner().trip();
    ask::scalar("SELECT hodei.is_at_home($1, $2)")
        .bind(exchange.owner.owner.name().as_str())
        .bind(exchange.owner.incarnation.cast_signed())
        .fetch_one(&mut *work.conn)
        .await
        .map_err(failed(OP))
}

/// Returns the row of an owner that lives.
async fn living(work: &mut Work<'_>, exchange: &Exchange) -> Result<Option<i32>> {
    work.inner().trip();
    ask::scalar(
        "SELECT no FROM hodei.owner
         WHERE name = $1 AND incarnation = $2 AND expires_at > $3 AND NOT cleared",
    )
    .bind(exchange.owner.owner.name().as_str())
    .bind(exchange.owner.incarnation.cast_signed())
    .bind(work.now.as_micros())
    .fetch_optional(&mut *work.conn)
    .await
    .map_err(failed(OP))
}

async fn next_due(work: &mut Work<'_>) -> Result<Option<Timestamp>> {
    work.inner().trip();
    let due: Option<i64> = ask::scalar("SELECT min(eligible_at) FROM hodei.delayed")
        .fetch_one(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
    Ok(due.map(Timestamp::from_micros))
}

/// Picks as the server takes them.
#[derive(Debug, Default)]
pub(crate) struct Picks {
    pub(crate) lanes: Vec<i32>,
    /// The last rank of each, and, by 64, the first.
    pub(crate) ranks: Vec<i16>,
    pub(crate) numbers: Vec<i64>,
    /// The rows of the lanes, each with the number of its first pick.
    pub(crate) rows: HashMap<i32, (usize, Arc<LaneRow>)>,
}

impl Picks {
    /// Whether the pick of a number, the first of which is 1, asks for jobs of a level.
    pub(crate) fn covers(&self, number: usize, level: Priority) -> bool {
        number.checked_sub(1).is_some_and(|at| self.has(at, rank(level)))
    }

    /// Whether the pick at a place asks for jobs of a rank.
    pub(crate) fn has(&self, at: usize, rank: i16) -> bool {
        self.ranks.get(at).is_some_and(|ranks| (ranks >> 6..=ranks & 63).contains(&rank))
    }
}

fn rank(level: Priority) -> i16 {
    63 - i16::from(level.level())
}

/// The ranks of a pick in one number, as a program of before tells the last one of all that are more urgent: by itself.
fn ranks_of(pick: &Pick) -> i16 {
    rank(pick.ceiling) * 64 + rank(pick.floor)
}

/// Turns picks into what the server takes; those of lanes that nobody has made fall away.
pub(crate) async fn picks_of(
    names: &crate::names::Names,
    conn: &mut PgConnection,
    picks: &[Pick],
) -> Result<Picks> {
    let mut all = Picks::default();
    for pick in picks {
        if let Some(lane) = names.find_lane(conn, &pick.lane).await? {
            all.lanes.push(lane.no);
            all.ranks.push(ranks_of(pick));
            all.numbers.push(i64::from(pick.n));
            let order = all.rows.len();
            all.rows.entry(lane.no).or_insert((order, lane));
        }
    }
    Ok(all)
}

/// Claims for a row of an owner, as if alone or as one among many.
async fn claim(
    work: &mut Work<'_>,
    exchange: &Exchange,
    picks: &Picks,
    (holder, alone): (i32, bool),
) -> Result<Vec<Claimed>> {
    let inner = Arc::clone(work.inner());
    work.inner().trip();
    let rows = ask::query("SELECT * FROM hodei.claim($1, $2, $3, $4, $5, $6, $7, NULL, NULL, $8)")
        .bind(holder)
        .bind(work.now.as_micros())
        .bind(inner.node)
        .bind(inner.config.change_log == hodei_core::store::ChangeLog::All)
        .bind(&picks.lanes)
        .bind(&picks.ranks)
        .bind(&picks.numbers)
        .bind(alone)
        .fetch_all(&mut *work.conn)
        .await
        .map_err(failed(OP))?;
    let (jobs, segments) = claimed(picks, &rows, &exchange.owner, work.now)?;
    work.segments.extend(segments);
    work.rows += rows.len() as u64;
    inputs_of(&mut *work.conn, jobs).await
}
