//! Owners and terms.

use std::time::Duration;

use hodei_core::job::{Epoch, Lease};
use hodei_core::store::{Beat, OWNER_TTL_MIN, Term};
use hodei_core::time::micros;
use hodei_core::{Error, Fault, JobId, Name, OwnerId, Result, Timestamp};

use super::work::Work;
use crate::codec::{self, OwnerRow, TermRow};
use crate::error::corrupt;
use crate::memory::Index;
use crate::rows::{Rows, Span};
use crate::table::{META_INCARNATION, Tab};

/// An end of life that is over at any time.
const ENDED: i64 = i64::MIN;

impl Work<'_, '_> {
    pub(super) fn owner(&mut self, owner: &str) -> Result<Option<OwnerRow>> {
        self.read(Tab::Owners, owner.as_bytes(), |row| codec::decode(row))
    }

    pub(super) fn put_owner(&mut self, owner: &str, row: OwnerRow) -> Result<()> {
        self.put(Tab::Owners, owner.as_bytes(), &codec::encode(&row, 32)?)
    }

    /// Says whether an owner is registered and alive in this very incarnation.
    pub(super) fn is_alive(&mut self, lease: &Lease) -> Result<bool> {
        let (now, row) = (self.now.as_micros(), self.owner(lease.owner.name().as_str())?);
        Ok(row.is_some_and(|row| row.incarnation == lease.incarnation && row.expires_at > now))
    }

    /// Says whether a term still holds.
    pub(super) fn holds(&mut self, term: &Term) -> Result<bool> {
        let now = self.now.as_micros();
        let held = self.read(Tab::Terms, term.duty.as_str().as_bytes(), |row| {
            let row: TermRow<'_> = codec::decode(row)?;
            Ok(row.number == term.number
                && row.owner == term.holder.owner.name().as_str()
                && row.incarnation == term.holder.incarnation
                && row.expires_at > now)
        })?;
        Ok(held.unwrap_or(false))
    }

    /// Ends the terms that are chosen.
    fn end_terms(&mut self, chosen: impl Fn(&TermRow<'_>) -> bool) -> Result<()> {
        let mut terms = Vec::new();
        self.scan(Tab::Terms, Span::ALL, |key, row| {
            let row: TermRow<'_> = codec::decode(row)?;
            if row.expires_at != ENDED && chosen(&row) {
                terms.push((key.to_vec(), codec::encode(&TermRow { expires_at: ENDED, ..row }, 64)?));
            }
            Ok(true)
        })?;
        terms.into_iter().try_for_each(|(key, row)| self.put(Tab::Terms, &key, &row))
    }

    /// Brings the lives of owners and the terms back by so much.
    pub(super) fn bring_lives_back(&mut self, by: Duration) -> Result<()> {
        let by = micros(by);
        let (mut owners, mut terms) = (Vec::new(), Vec::new());
        self.scan(Tab::Owners, Span::ALL, |key, row| {
            let row: OwnerRow = codec::decode(row)?;
            let row = OwnerRow { expires_at: row.expires_at.saturating_sub(by), ..row };
            owners.push((text(key)?, row));
            Ok(true)
        })?;
        self.scan(Tab::Terms, Span::ALL, |key, row| {
            let row: TermRow<'_> = codec::decode(row)?;
            let row = TermRow { expires_at: row.expires_at.saturating_sub(by), ..row };
            terms.push((key.to_vec(), codec::encode(&row, 64)?));
            Ok(true)
        })?;
        owners.into_iter().try_for_each(|(owner, row)| self.put_owner(&owner, row))?;
        terms.into_iter().try_for_each(|(key, row)| self.put(Tab::Terms, &key, &row))
    }

    pub(super) fn put_term(&mut self, term: &Term, ttl: Duration) -> Result<()> {
        let row = TermRow {
            number: term.number,
            owner: term.holder.owner.name().as_str(),
            incarnation: term.holder.incarnation,
            expires_at: self.now.saturating_add(ttl).as_micros(),
        };
        self.put(Tab::Terms, term.duty.as_str().as_bytes(), &codec::encode(&row, 64)?)
    }
}

/// Registers an owner.
pub(crate) fn register(work: &mut Work<'_, '_>, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
    if ttl < OWNER_TTL_MIN {
        let limit = u64::try_from(OWNER_TTL_MIN.as_millis()).unwrap_or(u64::MAX);
        return Err(Error::invalid("store.register", vec![Fault::new("ttl", "too_small").limit(limit)]));
    }
    let last = work.delta.incarnation.unwrap_or_else(|| work.look(|index| index.incarnation));
    let incarnation = last + 1;
    work.put(Tab::Meta, META_INCARNATION, &codec::number_row(incarnation)?)?;
    work.delta.incarnation = Some(incarnation);
    let expires_at = work.now.saturating_add(ttl).as_micros();
    work.put_owner(owner.name().as_str(), OwnerRow { incarnation, expires_at })?;
    Ok(Lease { owner: owner.clone(), incarnation })
}

/// Prolongs the lives of owners.
pub(crate) fn beat(work: &mut Work<'_, '_>, owners: &[Lease], ttl: Duration) -> Result<Vec<Beat>> {
    let mut beats = Vec::with_capacity(owners.len());
    for lease in owners {
        if !work.is_alive(lease)? {
            beats.push(Beat::default());
            continue;
        }
        let expires_at = work.now.saturating_add(ttl).as_micros();
        work.put_owner(lease.owner.name().as_str(), OwnerRow { incarnation: lease.incarnation, expires_at })?;
        let asked = |index: &Index| -> Vec<(JobId, Epoch)> {
            index.cancels.get(lease).into_iter().flatten().map(|(id, epoch)| (*id, *epoch)).collect()
        };
        let cancel = work.look(asked);
        beats.push(Beat { alive: true, cancel });
    }
    Ok(beats)
}

/// Ends an owner's life, and with it the terms that it holds.
pub(crate) fn retire(work: &mut Work<'_, '_>, lease: &Lease) -> Result<()> {
    let owner = lease.owner.name().as_str();
    if let Some(row) =
        work.owner(owner)?.filter(|row| row.incarnation == lease.incarnation && row.expires_at != ENDED)
    {
        work.delta.ring = true;
        work.put_owner(owner, OwnerRow { expires_at: ENDED, ..row })?;
    }
    work.end_terms(|row| row.owner == owner && row.incarnation <= lease.incarnation)
}

/// Takes a duty that nobody leads.
pub(crate) fn take_term(
    work: &mut Work<'_, '_>,
    duty: &Name,
    holder: &Lease,
    ttl: Duration,
) -> Result<Option<Term>> {
    let row = work.read(Tab::Terms, duty.as_str().as_bytes(), |row| {
        let row: TermRow<'_> = codec::decode(row)?;
        Ok((row.number, row.expires_at))
    })?;
    let (last, expires_at) = row.unwrap_or((0, ENDED));
    if Timestamp::from_micros(expires_at) > work.now {
        return Ok(None);
    }
    let term = Term { duty: duty.clone(), number: last + 1, holder: holder.clone() };
    work.put_term(&term, ttl)?;
    Ok(Some(term))
}

/// Keeps a term for a while longer.
pub(crate) fn keep_term(work: &mut Work<'_, '_>, term: &Term, ttl: Duration) -> Result<bool> {
    if !work.holds(term)? {
        return Ok(false);
    }
    work.put_term(term, ttl)?;
    Ok(true)
}

/// Ends every life and every term: whoever opens the file knows that nobody else holds it.
pub(crate) fn expire_all(work: &mut Work<'_, '_>) -> Result<()> {
    let mut owners = Vec::new();
    work.scan(Tab::Owners, Span::ALL, |key, row| {
        let row: OwnerRow = codec::decode(row)?;
        if row.expires_at != ENDED {
            owners.push((text(key)?, row));
        }
        Ok(true)
    })?;
    for (owner, row) in owners {
        work.put_owner(&owner, OwnerRow { expires_at: ENDED, ..row })?;
    }
    work.end_terms(|_| true)
}

fn text(key: &[u8]) -> Result<String> {
    std::str::from_utf8(key).map(str::to_owned).map_err(|_| corrupt("store.open", "an owner that is no text"))
}
