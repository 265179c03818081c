//! The connected agents: who may be answered and whose time has come, without a look at all of them.
//!
//! With ten thousand agents connected, the end of one job is the business of one of them. So whoever is given out to be
//! changed is noted, and only the noted are looked at when calls are answered; and for each there is a time before which
//! nothing becomes due. A call moves what is due to later and leaves that time as it is: it is put right when it has come, so
//! that a call costs no change of the order.

use std::collections::BTreeSet;
use std::collections::btree_map::{self, BTreeMap};
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::SessionState;
use hodei_core::{Name, Timestamp};

use super::placement::WorkerId;
use super::session::Session;

/// The connected agents, by name.
#[derive(Debug)]
pub(super) struct Sessions {
    by_name: BTreeMap<Name, Session>,
    /// How long a call waits for news, and how long an agent may be silent.
    next_sync: Duration,
    ttl: Duration,
    /// Whoever was given out to be changed since calls were answered; it says so itself as well.
    touched: Vec<Name>,
    /// Nothing is due of an agent before this time of it. All have one but those that are touched.
    due: BTreeSet<(Timestamp, Name)>,
    /// Who has come or gone since that was asked; nothing is noted before it was asked for the first time.
    changed: Option<Vec<Name>>,
}

impl Sessions {
    pub(super) fn new(next_sync: Duration, ttl: Duration) -> Self {
        let (by_name, due) = (BTreeMap::new(), BTreeSet::new());
        Self { by_name, next_sync, ttl, touched: Vec::new(), due, changed: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Takes the names of those who have come or gone since this was asked, in order; the first time, of all who are there.
    pub(super) fn take_changed(&mut self) -> Vec<Name> {
        let Some(mut names) = self.changed.replace(Vec::new()) else {
            return self.by_name.keys().cloned().collect();
        };
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(super) fn get(&self, name: &Name) -> Option<&Session> {
        self.by_name.get(name)
    }

    /// Goes through all, by name.
    pub(super) fn iter(&self) -> btree_map::Iter<'_, Name, Session> {
        self.by_name.iter()
    }

    /// Goes through all, by name.
    pub(super) fn values(&self) -> btree_map::Values<'_, Name, Session> {
        self.by_name.values()
    }

    /// Gives one out to be changed.
    pub(super) fn get_mut(&mut self, name: &Name) -> Option<&mut Session> {
        let session = self.by_name.get_mut(name)?;
        touch(session, name, &mut self.touched);
        Some(session)
    }

    /// Gives all out to be changed, by name.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        let touched = &mut self.touched;
        self.by_name.iter_mut().map(|(name, session)| {
            touch(session, name, touched);
            session
        })
    }

    /// Gives out the session of a caller to be changed; of one that is new here it begins, as the worker that `join` makes.
    pub(super) fn of_caller(
        &mut self,
        state: &SessionState,
        now: Timestamp,
        join: impl FnOnce() -> WorkerId,
    ) -> &mut Session {
        let session = self.by_name.entry(state.worker.clone()).or_insert_with(|| {
            self.changed.iter_mut().for_each(|changed| changed.push(state.worker.clone()));
            Session::new(state.incarnation, Arc::clone(&state.offer), join(), state.seen, now)
        });
        touch(session, &state.worker, &mut self.touched);
        session
    }

    pub(super) fn remove(&mut self, name: &Name) -> Option<Session> {
        let (name, session) = self.by_name.remove_entry(name)?;
        self.changed.iter_mut().for_each(|changed| changed.push(name.clone()));
        if let Some(due) = session.due {
            self.due.remove(&(due, name));
        }
        Some(session)
    }

    /// Takes the names of those who were given out to be changed since this was asked, in order.
    pub(super) fn take_touched(&mut self) -> Vec<Name> {
        let mut names = std::mem::take(&mut self.touched);
        names.sort_unstable();
        names.retain(|name| self.settle(name));
        names
    }

    /// Notes when something may be due of one that was touched; says whether it is still there.
    fn settle(&mut self, name: &Name) -> bool {
        // A name is here twice when an agent went and came.
        let Some(session) = self.by_name.get_mut(name).filter(|session| session.touched) else {
            return false;
        };
        session.touched = false;
        let due = session.is_due(self.next_sync, self.ttl);
        if session.due.is_none_or(|noted| due < noted) {
            let noted = session.due.replace(due);
            if let Some(noted) = noted {
                self.due.remove(&(noted, name.clone()));
            }
            self.due.insert((due, name.clone()));
        }
        true
    }

    /// Returns those of whom something is due, in order.
    pub(super) fn overdue(&mut self, now: Timestamp) -> Vec<Name> {
        let mut names = Vec::new();
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((_, name)) = self.due.pop_first()
        {
            if let Some(session) = self.by_name.get_mut(&name) {
                session.due = None;
                // What is due of it then is noted when calls are answered.
                touch(session, &name, &mut self.touched);
            }
        }
        let is_due = |session: &Session| session.is_due(self.next_sync, self.ttl) <= now;
        names.extend(self.touched.iter().filter(|name| self.by_name.get(*name).is_some_and(is_due)).cloned());
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns a time before which nothing is due of anybody.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let noted = self.due.first().map(|(at, _)| *at);
        let touched = self.touched.iter().filter_map(|name| self.by_name.get(name));
        touched.map(|session| session.is_due(self.next_sync, self.ttl)).chain(noted).min()
    }
}

#[cfg(test)]
impl Sessions {
    /// Panics if somebody was forgotten who is not noted: when calls have been answered, nobody waits for news that is there, and
    /// of nobody anything is due before what is noted.
    pub(super) fn check(&self, fleet: &super::placement::Fleet) {
        for (name, session) in &self.by_name {
            assert!(session.waiter.is_none() || !session.has_news(fleet), "{name} is not told");
            let due = session.is_due(self.next_sync, self.ttl);
            let noted = session.due.filter(|noted| self.due.contains(&(*noted, name.clone())));
            assert!(session.touched || noted.is_some_and(|noted| noted <= due), "{name}: {due:?}, {noted:?}");
            assert!(!session.touched || self.touched.contains(name), "{name} is not noted");
            assert!(self.next_due().is_some_and(|next| next <= due), "{name} is due earlier");
        }
        let noted = self.by_name.values().filter(|session| session.due.is_some()).count();
        assert_eq!(self.due.len(), noted, "of somebody who is gone something is due");
    }
}

fn touch(session: &mut Session, name: &Name, touched: &mut Vec<Name>) {
    if !std::mem::replace(&mut session.touched, true) {
        touched.push(name.clone());
    }
}
