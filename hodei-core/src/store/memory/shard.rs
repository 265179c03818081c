//! What the store does for whoever stands above it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::super::{Note, Relocate, Shard, Term};
use super::state::{OwnerRow, State, TermRow};
use super::store::MemoryStore;
use crate::error::Result;
use crate::id::Name;
use crate::job::Lease;
use crate::time::Timestamp;

impl State {
    fn put_note(&mut self, name: &Name, expected: u64, value: Bytes) -> bool {
        let version = self.notes.get(name).map_or(0, |note| note.version);
        if version != expected {
            return false;
        }
        self.notes.insert(name.clone(), Note { version: version + 1, value });
        true
    }

    fn owner_life(&self, owner: &Lease, now: Timestamp) -> Option<Duration> {
        let row = self.owners.get(&owner.owner).filter(|_| self.alive(owner, now))?;
        Some(row.expires_at.saturating_since(now))
    }

    fn adopt_owner(&mut self, owner: &Lease, ttl: Duration, now: Timestamp) -> bool {
        let expires_at = now.saturating_add(ttl);
        let row = self.owners.get(&owner.owner).copied();
        let row = match row {
            Some(row) if row.incarnation > owner.incarnation => return false,
            Some(row) if row.incarnation == owner.incarnation => {
                if row.expires_at <= now {
                    return false;
                }
                OwnerRow { expires_at: row.expires_at.max(expires_at), ..row }
            }
            Some(_) | None => OwnerRow { incarnation: owner.incarnation, expires_at },
        };
        self.owners.insert(owner.owner.clone(), row);
        self.last_incarnation = self.last_incarnation.max(owner.incarnation);
        true
    }

    fn term_life(&self, term: &Term, now: Timestamp) -> Option<Duration> {
        let row = self.terms.get(&term.duty).filter(|_| self.leads(term, now))?;
        Some(row.expires_at.saturating_since(now))
    }

    fn adopt_term(&mut self, term: &Term, ttl: Duration, now: Timestamp) -> bool {
        let later = |row: &TermRow| {
            row.term.number > term.number || (row.term.number == term.number && row.term != *term)
        };
        if self.terms.get(&term.duty).is_some_and(later) {
            return false;
        }
        let row = TermRow { term: term.clone(), expires_at: now.saturating_add(ttl) };
        self.terms.insert(term.duty.clone(), row);
        true
    }
}

#[async_trait]
impl Shard for MemoryStore {
    async fn note(&self, name: &Name) -> Result<Option<Note>> {
        Ok(self.read(|state, _| state.notes.get(name).cloned()))
    }

    async fn put_note(&self, name: &Name, expected: u64, value: Bytes) -> Result<bool> {
        Ok(self.write(|state, _| state.put_note(name, expected, value)))
    }

    async fn owner_life(&self, owner: &Lease) -> Result<Option<Duration>> {
        Ok(self.read(|state, now| state.owner_life(owner, now)))
    }

    async fn adopt_owner(&self, owner: &Lease, ttl: Duration) -> Result<bool> {
        Ok(self.write(|state, now| state.adopt_owner(owner, ttl, now)))
    }

    async fn term_life(&self, term: &Term) -> Result<Option<Duration>> {
        Ok(self.read(|state, now| state.term_life(term, now)))
    }

    async fn adopt_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        Ok(self.write(|state, now| state.adopt_term(term, ttl, now)))
    }

    fn relocate(&self) -> Option<&dyn Relocate> {
        Some(self)
    }
}
