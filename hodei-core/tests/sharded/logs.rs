//! A tenant's log is whole, or begins later: nothing is missing in its middle, however its slot moves and whatever each
//! shard prunes.

use std::time::Duration;

use hodei_core::store::*;
use hodei_core::{ErrorKind, JobId, Tenant};

use crate::world::{Shards, add, changes, job, name, owner, tenant_in};

/// A job, and a version of it.
type Moved = (JobId, u32);

struct Logs {
    shards: Shards,
    store: ShardedStore,
    term: Term,
}

impl Logs {
    async fn new() -> Self {
        let shards = Shards::new(3);
        let store = shards.open().await;
        let life = Duration::from_secs(1_000_000);
        let leader = store.register(&owner("leader"), life).await.expect("register");
        let term = store.take_term(&name("prune"), &leader, life).await.expect("take").expect("nobody leads");
        Self { shards, store, term }
    }

    /// Submits a job, and returns what was recorded of it.
    async fn submit(&self, tenant: &Tenant) -> Moved {
        self.shards.tick();
        (add(&self.store, vec![job(tenant)]).await[0], 1)
    }

    /// Cancels a job, or has it go round again.
    async fn turn(&self, (job, version): Moved) -> Moved {
        self.shards.tick();
        let changes = if version % 2 == 1 {
            self.store.request_cancel(&Scope::All, vec![job]).await.expect("cancel").changes
        } else {
            self.store.redrive(&Scope::All, vec![job]).await.expect("redrive").changes
        };
        assert_eq!(changes.iter().map(|change| change.version).collect::<Vec<_>>(), [version + 1]);
        (job, version + 1)
    }

    async fn to(&self, tenant: &Tenant, shard: usize) {
        self.shards.tick();
        self.store.move_slot(tenant.slot(), shard).await.expect("it moves");
        self.shards.tick();
    }

    /// Leaves each shard so many changes.
    async fn prune(&self, changes: u64) {
        let retention = Retention { changes, ..Retention::default() };
        while self.store.prune(&self.term, retention, 1_000).await.expect("prune").more {}
    }

    /// Reads a tenant's log from the beginning to the end.
    async fn log(&self, tenant: &Tenant, limit: usize) -> Vec<Moved> {
        let scope = Scope::Tenant(tenant.clone());
        moved(&changes(&self.store, &scope, None, limit).await.expect("changes").0)
    }
}

fn moved(changes: &[Change]) -> Vec<Moved> {
    changes.iter().map(|change| (change.job, change.version)).collect()
}

#[tokio::test]
async fn a_log_is_whole_after_a_move_and_a_pruning_of_the_source() {
    let logs = Logs::new().await;
    let (tenant, neighbour) = (tenant_in(0, 3, 0), tenant_in(0, 3, 1));
    for _ in 0..20 {
        logs.submit(&neighbour).await;
    }
    let mut last = logs.submit(&tenant).await;
    let mut all = vec![last];
    for to in [1, 2, 1] {
        for _ in 0..3 {
            last = logs.turn(last).await;
            all.push(last);
        }
        logs.to(&tenant, to).await;
    }
    assert_eq!(logs.log(&tenant, 2).await, all);
    // Of the source go the neighbour's.
    logs.prune(6).await;
    for limit in [1, 3, 100] {
        assert_eq!(logs.log(&tenant, limit).await, all, "{limit} at a time");
    }
    // And then the oldest of its own: of those that are left in the shard, and of no other.
    logs.prune(3).await;
    assert_eq!(logs.log(&tenant, 2).await, all[1..]);
}

#[tokio::test]
async fn what_a_pruned_target_has_lost_is_not_left_out_of_the_middle() {
    let logs = Logs::new().await;
    let (tenant, neighbour) = (tenant_in(0, 3, 0), tenant_in(1, 3, 0));
    let first = logs.submit(&tenant).await;
    logs.to(&tenant, 1).await;
    let second = logs.turn(first).await;
    for _ in 0..9 {
        logs.submit(&neighbour).await;
    }
    let third = logs.turn(second).await;
    assert_eq!(logs.log(&tenant, 1).await, [first, second, third]);
    logs.prune(10).await;
    for limit in [1, 100] {
        assert_eq!(logs.log(&tenant, limit).await, [third], "the source has the first, nobody the second");
    }
    // Where it comes back nothing is told twice.
    logs.to(&tenant, 0).await;
    let fourth = logs.turn(third).await;
    for limit in [1, 100] {
        assert_eq!(logs.log(&tenant, limit).await, [third, fourth]);
    }
}

#[tokio::test]
async fn whoever_has_begun_is_told_of_what_was_pruned_before_it_was_read() {
    let logs = Logs::new().await;
    let (tenant, neighbour) = (tenant_in(0, 3, 0), tenant_in(1, 3, 0));
    let first = logs.submit(&tenant).await;
    let own = Scope::Tenant(tenant.clone());
    let begun = logs.store.changes(&own, None, 1).await.expect("changes");
    let all = logs.store.changes(&Scope::All, None, 1).await.expect("changes");
    logs.to(&tenant, 1).await;
    let second = logs.turn(first).await;
    let rest = logs.store.changes(&own, Some(begun.next.clone()), 9).await.expect("changes").changes;
    assert_eq!(moved(&rest), [second]);
    let middle = logs.store.changes(&Scope::All, None, 1).await.expect("changes");
    for _ in 0..9 {
        logs.submit(&neighbour).await;
    }
    logs.prune(9).await;
    for (scope, page) in [(&own, begun), (&Scope::All, all), (&Scope::All, middle)] {
        let error = logs.store.changes(scope, Some(page.next), 9).await.expect_err("the second is gone");
        assert_eq!((error.kind(), error.context("shard")), (ErrorKind::CursorExpired, Some("1")));
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).expect("it is below n")
    }
}

/// Whoever follows a tenant's log, and knows what is in it.
struct Reader {
    tenant: usize,
    cursor: Option<Cursor>,
    /// How many changes of the tenant are behind it, once it was told of one.
    place: Option<usize>,
}

impl Reader {
    /// Reads a page, which has what follows in the log; says whether that was all.
    async fn read(&mut self, logs: &Logs, tenant: &Tenant, truth: &[Moved], limit: usize) -> bool {
        let scope = Scope::Tenant(tenant.clone());
        match logs.store.changes(&scope, self.cursor.clone(), limit).await {
            Ok(page) => {
                let told = moved(&page.changes);
                if let Some(first) = told.first() {
                    let at = truth.iter().position(|moved| moved == first).expect("it was recorded");
                    let place = self.place.unwrap_or(at);
                    assert_eq!(
                        told,
                        truth[place..place + told.len()],
                        "nothing is missing, nothing comes twice"
                    );
                    self.place = Some(place + told.len());
                }
                let over = told.is_empty() && self.cursor.as_ref() == Some(&page.next);
                assert!(!over || self.place.is_none_or(|place| place == truth.len()), "the end is told too");
                self.cursor = Some(page.next);
                over
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::CursorExpired);
                assert!(self.cursor.is_some(), "whoever begins is told of what there is");
                (self.cursor, self.place) = (None, None);
                false
            }
        }
    }
}

#[tokio::test]
async fn whatever_moves_and_is_pruned_each_reader_of_a_tenant_is_told_of_a_log_without_gaps() {
    let seeds = std::env::var("HODEI_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut expired = 0;
    for seed in 1..=seeds {
        let (logs, mut random) = (Logs::new().await, Random(seed));
        let tenants: Vec<Tenant> = (0..4).map(|n| tenant_in(n % 3, 3, n / 3)).collect();
        let mut truth: Vec<Vec<Moved>> = vec![Vec::new(); tenants.len()];
        let mut readers: Vec<Reader> =
            (0..8).map(|n| Reader { tenant: n % tenants.len(), cursor: None, place: None }).collect();
        for _ in 0..160 {
            let of = random.below(tenants.len());
            match random.below(12) {
                0..3 => truth[of].push(logs.submit(&tenants[of]).await),
                3..6 => {
                    if let Some(last) = truth[of].last() {
                        let next = logs.turn(*last).await;
                        truth[of].push(next);
                    }
                }
                6 => logs.to(&tenants[of], random.below(3)).await,
                7 if random.below(3) == 0 => logs.prune(4 + random.below(20) as u64).await,
                _ => {
                    let reader = &mut readers[random.below(8)];
                    let (tenant, before) = (reader.tenant, reader.cursor.is_some());
                    reader.read(&logs, &tenants[tenant], &truth[tenant], 1 + random.below(4)).await;
                    expired += u32::from(before && reader.cursor.is_none());
                }
            }
        }
        for reader in &mut readers {
            let tenant = reader.tenant;
            while !reader.read(&logs, &tenants[tenant], &truth[tenant], 3).await {}
        }
    }
    assert!(expired > 0, "readers were overtaken by prunings");
}
