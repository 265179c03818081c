//! What lists show of a job, read out of its row without the rest: no record is made, and names that the row before had
//! too are shared with it.
//!
//! The fields are walked through by hand, in the order of [`HeadRow`](super::row::HeadRow) and
//! [`BornRow`](super::row::BornRow); the tests hold both ways of reading to the same answers.

use hodei_core::job::{Cause, Epoch, JobSummary, State};
use hodei_core::{Error, JobId, Name, PipelineId, Result, Tenant, Timestamp};

use super::envelope::SECOND;
use super::row::{Id, marks};
use super::value::{Names, cause, name, priority, state, time};
use crate::error::corrupt;

/// What lists show of a job, and whether it is as it was born.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// What lists show.
    pub(crate) summary: JobSummary,
    /// Whether nothing has happened to the job.
    pub(crate) newborn: bool,
}

/// Reads what lists show out of the row of what moves.
pub(crate) fn shown(id: JobId, bytes: &[u8], names: &mut Names) -> Result<Shown> {
    let mut row = Walk::over(bytes)?;
    let mut summary = row.begin(id, names)?;
    summary.created_at = row.time()?;
    row.option(Walk::time)?;
    summary.state = state(row.byte()?)?;
    summary.cause = cause(row.byte()?)?;
    summary.cancel_requested = row.flag()?;
    summary.version = row.number()?;
    summary.attempt = row.number()?;
    let _waits_for: u32 = row.number()?;
    let _lost_count: u16 = row.number()?;
    let _generation: u16 = row.number()?;
    summary.epoch = Epoch::from_number(row.wide()?);
    summary.eligible_at = row.time()?;
    summary.moved_at = row.time()?;
    summary.started_at = row.option(Walk::time)?;
    row.option(|row| row.bytes().and_then(|_| row.wide()))?;
    row.wide()?;
    let ((has_children, _key), _has_end) = (marks(row.byte()?)?, row.flag()?);
    row.end()?;
    let newborn = summary.state == State::Pending && summary.version == 1 && !has_children;
    Ok(Shown { summary, newborn })
}

/// Reads what lists show of a job to which nothing has happened since it was submitted.
pub(crate) fn newborn_shown(id: JobId, bytes: &[u8], names: &mut Names) -> Result<Shown> {
    let mut row = Walk::over(bytes)?;
    row.take::<{ 2 * size_of::<Id>() }>()?;
    row.wide()?;
    let mut summary = row.begin(id, names)?;
    summary.created_at = row.time()?;
    summary.moved_at = summary.created_at;
    summary.eligible_at = row.time()?;
    row.option(Walk::time)?;
    row.option(Walk::bytes)?;
    let parents = row.length()?;
    for _ in 0..parents {
        row.take::<{ size_of::<Id>() + 1 }>()?;
    }
    row.bytes()?;
    row.end()?;
    let newborn = parents == 0;
    summary.state = if newborn { State::Pending } else { State::Blocked };
    Ok(Shown { summary, newborn })
}

/// A walk through the fields of a row.
struct Walk<'a> {
    rest: &'a [u8],
}

fn short() -> Error {
    corrupt("row.decode", "a short row")
}

impl<'a> Walk<'a> {
    fn over(bytes: &'a [u8]) -> Result<Self> {
        match bytes.split_first() {
            Some((&SECOND, rest)) => Ok(Self { rest }),
            _ => Err(corrupt("row.decode", "an unknown format")),
        }
    }

    /// Reads what the rows of a job have in common: from the tenant to the pipeline.
    #[inline]
    fn begin(&mut self, id: JobId, names: &mut Names) -> Result<JobSummary> {
        let tenant = Tenant::from(shared(&mut names.tenant, self.bytes()?)?);
        let name = shared(&mut names.name, self.bytes()?)?;
        let queue = shared(&mut names.queue, self.bytes()?)?;
        self.bytes()?;
        self.wide()?;
        let priority = priority(self.byte()?)?;
        let pipeline = self.option(Self::take::<{ size_of::<Id>() }>)?.map(|id| PipelineId::from_bytes(*id));
        Ok(JobSummary {
            id,
            tenant,
            name,
            queue,
            priority,
            pipeline,
            state: State::Pending,
            cause: Cause::Submitted,
            cancel_requested: false,
            version: 1,
            attempt: 0,
            epoch: Epoch::default(),
            created_at: Timestamp::default(),
            eligible_at: Timestamp::default(),
            moved_at: Timestamp::default(),
            started_at: None,
        })
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(short)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        self.take::<1>().map(|[byte]| *byte)
    }

    #[inline]
    fn flag(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(corrupt("row.decode", "neither yes nor no")),
        }
    }

    #[inline]
    fn wide(&mut self) -> Result<u64> {
        Ok(match self.byte()? {
            small @ 0..=250 => u64::from(small),
            251 => u64::from(u16::from_le_bytes(*self.take()?)),
            252 => u64::from(u32::from_le_bytes(*self.take()?)),
            253 => u64::from_le_bytes(*self.take()?),
            _ => return Err(corrupt("row.decode", "a number too wide")),
        })
    }

    #[inline]
    fn number<N: TryFrom<u64>>(&mut self) -> Result<N> {
        N::try_from(self.wide()?).map_err(|_| corrupt("row.decode", "a number too wide"))
    }

    #[inline]
    fn time(&mut self) -> Result<Timestamp> {
        let folded = self.wide()?;
        Ok(time((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed()))
    }

    #[inline]
    fn option<R>(&mut self, read: impl FnOnce(&mut Self) -> Result<R>) -> Result<Option<R>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    #[inline]
    fn length(&mut self) -> Result<usize> {
        self.number()
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(short)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(corrupt("row.decode", "bytes behind a row")) }
    }
}

/// Returns the name of a text: the one that the column had last, where it is the same.
#[inline]
fn shared(last: &mut Option<Name>, text: &[u8]) -> Result<Name> {
    match last {
        Some(last) if last.as_str().as_bytes() == text => Ok(last.clone()),
        _ => {
            let text = std::str::from_utf8(text).map_err(|_| corrupt("row.decode", "a bad name"))?;
            Ok(last.insert(name(text)?).clone())
        }
    }
}
