//! A tier in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::tier::{CacheTier, TierRow};
use crate::error::Result;
use crate::id::JobId;
use crate::time::{Clock, SystemClock, Timestamp};

/// A tier for tests, and for several caches in one process. Cloning shares the rows.
#[derive(Clone, Debug)]
pub struct MemoryTier {
    /// A std mutex, held for a look-up of a few rows.
    rows: Arc<Mutex<BTreeMap<JobId, Row>>>,
    clock: Arc<dyn Clock>,
    rows_max: usize,
}

#[derive(Debug)]
struct Row {
    version: u32,
    bytes: Bytes,
    until: Timestamp,
}

impl Default for MemoryTier {
    fn default() -> Self {
        Self { rows: Arc::default(), clock: Arc::new(SystemClock), rows_max: 100_000 }
    }
}

impl MemoryTier {
    /// Makes an empty tier.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the clock by which rows expire. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets how many rows are kept; beyond that, rows that have expired make room, and new ones are not taken. Default:
    /// 100,000.
    #[must_use]
    pub fn rows_max(mut self, rows: usize) -> Self {
        self.rows_max = rows;
        self
    }

    /// Forgets everything.
    pub fn flush(&self) {
        self.rows().clear();
    }

    /// Returns how many rows there are, expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows().len()
    }

    /// Says whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<JobId, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CacheTier for MemoryTier {
    async fn get_many(&self, keys: &[JobId]) -> Result<Vec<Option<Bytes>>> {
        let (now, rows) = (self.clock.now(), self.rows());
        let row = |key| rows.get(key).filter(|row| now < row.until).map(|row| row.bytes.clone());
        Ok(keys.iter().map(row).collect())
    }

    async fn put_many(&self, new: Vec<TierRow>) -> Result<()> {
        let (now, mut rows) = (self.clock.now(), self.rows());
        if rows.len() + new.len() > self.rows_max {
            rows.retain(|_, row| now < row.until);
        }
        for TierRow { key, version, bytes, ttl } in new {
            let newer = rows.get(&key).is_some_and(|row| row.version > version && now < row.until);
            if !newer && (rows.len() < self.rows_max || rows.contains_key(&key)) {
                rows.insert(key, Row { version, bytes, until: now.saturating_add(ttl) });
            }
        }
        Ok(())
    }

    async fn remove_many(&self, keys: &[JobId]) -> Result<()> {
        let mut rows = self.rows();
        keys.iter().for_each(|key| drop(rows.remove(key)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::Tenant;
    use crate::time::ManualClock;

    fn row(key: u64, version: u32) -> TierRow {
        let bytes = Bytes::from(version.to_string());
        let key = JobId::from_parts(key, Tenant::default().slot(), 0);
        TierRow { key, version, bytes, ttl: Duration::from_secs(1) }
    }

    async fn seen(tier: &MemoryTier, key: u64) -> Option<String> {
        let rows = tier.get_many(&[row(key, 0).key]).await.unwrap();
        rows[0].as_ref().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_newest_version_stays_until_its_time_is_over() {
        let clock = Arc::new(ManualClock::at(Timestamp::EPOCH));
        let tier = MemoryTier::new().clock(Arc::<ManualClock>::clone(&clock));
        tier.put_many(vec![row(1, 2)]).await.unwrap();
        tier.put_many(vec![row(1, 1)]).await.unwrap();
        assert_eq!(seen(&tier, 1).await.as_deref(), Some("2"));
        clock.advance(Duration::from_secs(1));
        assert_eq!(seen(&tier, 1).await, None);
        tier.put_many(vec![row(1, 1)]).await.unwrap();
        assert_eq!(seen(&tier, 1).await.as_deref(), Some("1"));
        tier.remove_many(&[row(1, 0).key]).await.unwrap();
        assert!(tier.is_empty());
    }

    #[tokio::test]
    async fn a_full_tier_takes_no_more_than_it_may() {
        let clock = Arc::new(ManualClock::at(Timestamp::EPOCH));
        let tier = MemoryTier::new().rows_max(2).clock(Arc::<ManualClock>::clone(&clock));
        tier.put_many(vec![row(1, 1), row(2, 1), row(3, 1), row(1, 2)]).await.unwrap();
        assert_eq!((tier.len(), seen(&tier, 3).await, seen(&tier, 1).await.as_deref()), (2, None, Some("2")));
        clock.advance(Duration::from_secs(1));
        tier.put_many(vec![row(3, 1)]).await.unwrap();
        assert_eq!((tier.len(), seen(&tier, 3).await.as_deref()), (1, Some("1")));
    }
}
