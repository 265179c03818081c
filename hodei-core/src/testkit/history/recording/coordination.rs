//! The verbs of owners and terms.

use std::time::Duration;

use async_trait::async_trait;

use super::super::call::{Call, Reply, duty_of};
use super::store::RecordingStore;
use crate::error::Result;
use crate::id::{Name, OwnerId};
use crate::job::Lease;
use crate::store::{Beat, Coordination, Living, Round, Rounded, Term, round_by_verbs};
use crate::time::Timestamp;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Coordination> Coordination for RecordingStore<S> {
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        let call = Call::Register { owner: owner.clone() };
        let reply = |lease: &Lease| Reply::Registered { lease: lease.clone() };
        self.noted(call, self.inner.register(owner, ttl), reply).await
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        let call = Call::Beat { owners: owners.clone() };
        self.noted(call, self.inner.beat(owners, ttl), |_| Reply::Done).await
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        let call = Call::Retire { owner: owner.clone() };
        self.noted(call, self.inner.retire(owner), |()| Reply::Done).await
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        let call = Call::TakeTerm { duty: duty.clone(), holder: holder.clone() };
        let reply = |term: &Option<Term>| Reply::Term { number: term.as_ref().map(|term| term.number) };
        self.noted(call, self.inner.take_term(duty, holder, ttl), reply).await
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        let (duty, number) = duty_of(term);
        let call = Call::KeepTerm { duty, term: number };
        let reply = |kept: &bool| Reply::Term { number: kept.then_some(number) };
        self.noted(call, self.inner.keep_term(term, ttl), reply).await
    }

    /// Noted as the verbs that it stands for, and made of them.
    async fn round(&self, round: Round) -> Result<Rounded> {
        round_by_verbs(self, round).await
    }

    /// Not noted: nothing is promised of a reading.
    async fn owners(&self) -> Result<Vec<Living>> {
        self.inner.owners().await
    }

    /// Not noted: nothing is promised of a reading.
    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }
}
