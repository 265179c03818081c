//! Reading ahead: what will most likely be claimed next is decoded while nobody asks for anything.
//!
//! Whoever claims takes the first jobs of a lane, and comes back for those behind them when they have ended. Between the
//! answer and the next call the writer has nothing to do: it brings the next jobs into [`Recent`](crate::recent::Recent)
//! then, so that their claim reads and decodes nothing.

use std::sync::Arc;

use hodei_core::store::Lane;
use hodei_core::{JobId, Result};

use crate::codec::{self, Head};
use crate::error::guarded;
use crate::inner::Inner;
use crate::memory::{Delta, Step};
use crate::reader::Snapshot;
use crate::rows::Rows;
use crate::sync::lock;
use crate::table::Tab;

/// How many lanes are read ahead after a commit at most.
const LANES_MAX: usize = 4;

/// How many jobs are decoded before somebody looks again whether a call has come.
const TOGETHER: usize = 32;

/// What is to be read as of the last commit.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Lanes from which it claimed, and how many jobs.
    lanes: Vec<(Lane, usize)>,
    /// Jobs that are read next, the first at the end.
    ids: Vec<JobId>,
}

impl Ahead {
    /// Begins anew, with what a commit claimed.
    pub(crate) fn begin(&mut self, delta: Option<&Delta>) {
        self.lanes.clear();
        self.ids.clear();
        for Step { was, head } in delta.into_iter().flat_map(|delta| &delta.steps).map(|step| &**step) {
            if head.job.lease.is_none() || !was.as_ref().is_some_and(|was| was.newborn) {
                continue;
            }
            match self.lanes.iter().position(|(lane, _)| head.is_in(lane)) {
                Some(known) => self.lanes[known].1 += 1,
                None if self.lanes.len() < LANES_MAX => self.lanes.push((head.lane(), 1)),
                None => {}
            }
        }
    }

    /// Reads some of it, and says whether there was something to read. What cannot be read is left to its claim.
    pub(crate) fn read_some(&mut self, inner: &Inner) -> bool {
        if self.ids.is_empty() {
            let Some((lane, claimed)) = self.lanes.pop() else { return false };
            self.ids = wanted(inner, &lane, claimed);
            return true;
        }
        let mut some = self.ids.split_off(self.ids.len().saturating_sub(TOGETHER));
        some.sort_unstable();
        if guarded("store.ahead", || read(inner, &some)).is_err() {
            self.begin(None);
        }
        true
    }
}

/// Returns the next jobs of a lane that are as they were born and not remembered, the first at the end.
fn wanted(inner: &Inner, lane: &Lane, most: usize) -> Vec<JobId> {
    let newborn = lock(&inner.committed).index.first_newborn(lane, most);
    let mut ids = lock(&inner.recent).unknown(newborn);
    ids.reverse();
    ids
}

fn read(inner: &Inner, ids: &[JobId]) -> Result<()> {
    let view = Arc::clone(&lock(&inner.view));
    let mut rows = Snapshot::first(view, &inner.stats, &inner.specs);
    let mut names = std::mem::take(rows.names());
    let mut read: Vec<Head> = Vec::with_capacity(ids.len());
    rows.seek(Tab::Born, ids.iter().map(|id| &id.as_bytes()[..]), |number, row| {
        let known = |spec| lock(&inner.recent).spec(spec);
        let (head, fixed) = codec::born(ids[number], row, &mut names, known)?;
        let batch = head.batch;
        read.push(Head::of(head.full(fixed, None), batch));
        Ok(())
    })?;
    let mut gone = Vec::new();
    let mut recent = lock(&inner.recent);
    read.into_iter().for_each(|head| recent.bring(head, &mut gone));
    drop(recent);
    drop(gone);
    Ok(())
}
