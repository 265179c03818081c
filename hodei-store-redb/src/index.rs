//! What is kept in memory: counts, depths of lanes, uses of limits. Changed only after a commit returned `Ok`, and read
//! anew from the rows after a commit that did not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hodei_core::job::{Priority, Request, State};
use hodei_core::store::{Change, Counts, Lane, Scope};
use hodei_core::text::Texts;
use hodei_core::{Result, Tenant};

use crate::codec;
use crate::error::corrupt;
use crate::key;
use crate::rows::{Rows, Span};
use crate::table::{META_FLOOR, META_INCARNATION, Tab};

/// Which limit: a tenant and a key.
pub(crate) type LimitKey = (Tenant, Box<str>);

/// Returns the limits that jobs with these keys count against.
pub(crate) fn limits_of(tenant: &Tenant, keys: &Texts) -> impl Iterator<Item = LimitKey> {
    keys.iter().map(|key| (tenant.clone(), key.into()))
}

/// What is known of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaneState {
    /// Which lane.
    pub(crate) lane: Lane,
    /// What its jobs ask of a worker.
    pub(crate) request: Arc<Request>,
    /// How many are ready at each level.
    pub(crate) levels: BTreeMap<Priority, u64>,
    /// How many wait for their time.
    pub(crate) waiting: u64,
}

/// What is kept in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// By tenant.
    pub(crate) counts: BTreeMap<Tenant, Counts>,
    /// By the key of the lane.
    pub(crate) lanes: HashMap<Vec<u8>, LaneState>,
    /// How many leased jobs count against a limit, set or not; never zero.
    pub(crate) in_use: HashMap<LimitKey, u64>,
    /// The number of the next change.
    pub(crate) next_change: u64,
    /// The number of the first change that is kept.
    pub(crate) floor: u64,
    /// The last incarnation that was given out.
    pub(crate) incarnation: u64,
}

/// What a transaction will have changed of the index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delta {
    /// Jobs that came into or left a state.
    pub(crate) counts: HashMap<Tenant, [i64; State::ALL.len()]>,
    /// Lanes that are new.
    pub(crate) new_lanes: HashMap<Vec<u8>, LaneState>,
    /// Lanes whose rows are gone.
    pub(crate) gone_lanes: Vec<Vec<u8>>,
    /// Ready jobs that came or left.
    pub(crate) depths: HashMap<Vec<u8>, LaneDelta>,
    /// Uses of limits.
    pub(crate) in_use: HashMap<LimitKey, i64>,
    /// How many changes were recorded.
    pub(crate) changes: u64,
    /// The new first change that is kept.
    pub(crate) floor: Option<u64>,
    /// The last incarnation that was given out.
    pub(crate) incarnation: Option<u64>,
    /// What the sinks are told; nothing while there is none.
    pub(crate) committed: Vec<Change>,
    /// Whether something may be ready or has to stop.
    pub(crate) ring: bool,
}

/// Ready and waiting jobs of a lane that came or left.
#[derive(Clone, Debug, Default)]
pub(crate) struct LaneDelta {
    /// Ready at a level.
    pub(crate) levels: HashMap<Priority, i64>,
    /// Waiting for their time.
    pub(crate) waiting: i64,
}

fn add(number: u64, change: i64) -> u64 {
    number.saturating_add_signed(change)
}

impl Delta {
    /// Notes that ready jobs of a lane came or left.
    pub(crate) fn ready(&mut self, lane: &[u8], level: Priority, change: i64) {
        *self.depths_of(lane).levels.entry(level).or_default() += change;
        self.ring |= change > 0;
    }

    /// Notes that waiting jobs of a lane came or left.
    pub(crate) fn waiting(&mut self, lane: &[u8], change: i64) {
        self.depths_of(lane).waiting += change;
        self.ring |= change > 0;
    }

    fn depths_of(&mut self, lane: &[u8]) -> &mut LaneDelta {
        if !self.depths.contains_key(lane) {
            self.depths.insert(lane.to_vec(), LaneDelta::default());
        }
        self.depths.entry(lane.to_vec()).or_default()
    }

    /// Notes that a job came into, moved between or left states.
    pub(crate) fn moved(&mut self, tenant: &Tenant, from: Option<State>, to: Option<State>) {
        if from == to {
            return;
        }
        if !self.counts.contains_key(tenant) {
            self.counts.insert(tenant.clone(), [0; State::ALL.len()]);
        }
        if let Some(counts) = self.counts.get_mut(tenant) {
            if let Some(from) = from {
                counts[from as usize] -= 1;
            }
            if let Some(to) = to {
                counts[to as usize] += 1;
            }
        }
    }

    /// Notes that a job began or ceased to count against its limits.
    pub(crate) fn uses(&mut self, tenant: &Tenant, keys: &Texts, change: i64) {
        for of in limits_of(tenant, keys) {
            *self.in_use.entry(of).or_default() += change;
            self.ring |= change < 0;
        }
    }
}

impl Index {
    /// Returns the counts of a tenant with what a transaction changes of them.
    pub(crate) fn counts_with(&self, tenant: &Tenant, delta: &[i64; State::ALL.len()]) -> Counts {
        let now = self.counts.get(tenant).copied().unwrap_or_default();
        Counts::from_numbers(State::ALL.map(|state| add(now.of(state), delta[state as usize])))
    }

    /// Returns how many jobs there are.
    pub(crate) fn total(&self) -> u64 {
        self.counts.values().map(Counts::total).sum()
    }

    /// Returns how many jobs of a scope are in each state.
    pub(crate) fn counts_of(&self, scope: &Scope) -> Counts {
        match scope {
            Scope::Tenant(tenant) => self.counts.get(tenant).copied().unwrap_or_default(),
            Scope::All => {
                let sum = |state| self.counts.values().map(|counts| counts.of(state)).sum();
                Counts::from_numbers(State::ALL.map(sum))
            }
        }
    }

    /// Takes over what a committed transaction changed.
    pub(crate) fn apply(&mut self, delta: Delta) {
        for (tenant, change) in delta.counts {
            let counts = self.counts_with(&tenant, &change);
            if counts.total() == 0 {
                self.counts.remove(&tenant);
            } else {
                self.counts.insert(tenant, counts);
            }
        }
        for (key, lane) in delta.new_lanes {
            self.lanes.entry(key).or_insert(lane);
        }
        for (key, change) in delta.depths {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            lane.waiting = add(lane.waiting, change.waiting);
            for (level, change) in change.levels {
                let depth = add(lane.levels.get(&level).copied().unwrap_or(0), change);
                if depth == 0 {
                    lane.levels.remove(&level);
                } else {
                    lane.levels.insert(level, depth);
                }
            }
        }
        for key in delta.gone_lanes {
            self.lanes.remove(&key);
        }
        for (key, change) in delta.in_use {
            let uses = add(self.in_use.get(&key).copied().unwrap_or(0), change);
            if uses == 0 {
                self.in_use.remove(&key);
            } else {
                self.in_use.insert(key, uses);
            }
        }
        self.next_change += delta.changes;
        self.floor = delta.floor.unwrap_or(self.floor);
        self.incarnation = delta.incarnation.unwrap_or(self.incarnation);
    }

    /// Reads the index from the rows.
    pub(crate) fn read(rows: &mut impl Rows) -> Result<Self> {
        let mut index = Self::default();
        rows.scan(Tab::Counts, Span::ALL, |_, row| {
            let (tenant, counts) = codec::counts(row)?;
            index.counts.insert(tenant, counts);
            Ok(true)
        })?;
        rows.scan(Tab::Lanes, Span::ALL, |key, row| {
            let (lane, request) = codec::lane(row)?;
            let state = LaneState { lane, request: Arc::new(request), levels: BTreeMap::new(), waiting: 0 };
            index.lanes.insert(key.to_vec(), state);
            Ok(true)
        })?;
        index.read_depths(rows)?;
        index.read_uses(rows)?;
        index.floor = rows.read(Tab::Meta, META_FLOOR, codec::number)?.unwrap_or(1);
        index.incarnation = rows.read(Tab::Meta, META_INCARNATION, codec::number)?.unwrap_or(0);
        index.next_change = next_change(rows)?.unwrap_or(index.floor).max(index.floor);
        Ok(index)
    }

    fn read_depths(&mut self, rows: &mut impl Rows) -> Result<()> {
        let lost = || corrupt("index.read", "ready work without its lane");
        rows.scan(Tab::Ready, Span::ALL, |key, _| {
            let (lane, level, ..) = key::split_ready(key).ok_or_else(lost)?;
            *self.lanes.get_mut(lane).ok_or_else(lost)?.levels.entry(level).or_default() += 1;
            Ok(true)
        })?;
        rows.scan(Tab::Due, Span::ALL, |_, row| {
            let (lane, ..) = key::split_ready(codec::place(row)?).ok_or_else(lost)?;
            self.lanes.get_mut(lane).ok_or_else(lost)?.waiting += 1;
            Ok(true)
        })
    }

    fn read_uses(&mut self, rows: &mut impl Rows) -> Result<()> {
        for id in rows.ids(Tab::Leases, &[])? {
            let head = rows.head(id)?.ok_or_else(|| corrupt("index.read", "a lease without its job"))?;
            for of in limits_of(&head.job.tenant, &head.limit_keys) {
                *self.in_use.entry(of).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// Returns the number that follows that of the last change.
fn next_change(rows: &mut impl Rows) -> Result<Option<u64>> {
    rows.at_or_before(Tab::Changes, &key::sequence(u64::MAX), |key, row| {
        let first = key::sequence_of(key).ok_or_else(|| corrupt("index.read", "a short key"))?;
        Ok(first + codec::changes(row)?.len() as u64)
    })
}
