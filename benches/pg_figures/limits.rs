//! What limits cost: jobs of many tenants, each with a limit of its own, and each with a rate, beside the same without.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use hodei_benches::directory;
use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::job::NewJob;
use hodei_core::store::{Limit, Policies, Rate, Store};
use hodei_core::{Name, Tenant};
use hodei_store_redb::RedbStore;

use crate::Sizes;
use crate::world::{self, Turns};

/// How many jobs each tenant has, and how many of them may run at once.
const DEEP: usize = 5;
const MOST: u32 = 3;
const KEY: &str = "own";
/// A rate that holds nobody up: what is looked at is what it costs.
const RATE: Rate = Rate::new(1_000_000, Duration::from_secs(1));
/// How many limits are set at once.
const TOGETHER: usize = 16;

fn tenant(n: usize) -> Tenant {
    Tenant::new(format!("tenant-{n}")).expect("a valid name")
}

fn spread(n: usize, tenants: usize, limited: bool) -> Vec<NewJob> {
    let with = |_, spec: hodei_core::job::JobSpecBuilder| if limited { spec.limited_by(KEY) } else { spec };
    world::jobs(n, |n| tenant(n % tenants), with)
}

/// Gives each tenant a limit, perhaps with a rate.
async fn limit(store: &Arc<dyn Store>, tenants: usize, rate: Option<Rate>) -> Result<(), String> {
    let set = |n| {
        let limit = Limit { rate, ..Limit::key(tenant(n), Name::literal(KEY), MOST) };
        let store = Arc::clone(store);
        async move { Policies::set_limit(&*store, limit).await }
    };
    let setting = stream::iter(0..tenants).map(set).buffer_unordered(TOGETHER);
    setting.try_for_each(|()| async { Ok(()) }).await.map_err(|error| error.to_string())
}

/// Drains the load without limits, with them, and with rates, each from a new store.
async fn turn<F, Fut>(sizes: Sizes, new: F) -> Result<[f64; 3], String>
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Result<Arc<dyn Store>, String>>,
{
    let n = sizes.lanes * DEEP;
    let store = new("without").await?;
    let first = world::drain(&store, spread(n, sizes.lanes, false)).await?;
    let store = new("with").await?;
    limit(&store, sizes.lanes, None).await?;
    let second = world::drain(&store, spread(n, sizes.lanes, true)).await?;
    let store = new("paced").await?;
    limit(&store, sizes.lanes, Some(RATE)).await?;
    Ok([first, second, world::drain(&store, spread(n, sizes.lanes, true)).await?])
}

/// The turns with limits, and those with rates, each beside the ones without.
#[derive(Default)]
struct Both {
    limits: Turns,
    rates: Turns,
}

impl Both {
    fn push(&mut self, [without, limits, rates]: [f64; 3]) {
        self.limits.push(without, limits);
        self.rates.push(without, rates);
    }
}

fn show(report: &mut Report, what: &str, turns: &Both) {
    report.show(&format!("{what}, without limits"), turns.limits.of(0), Unit::PerSecond);
    for (with, turns) in [("limits", &turns.limits), ("limits and rates", &turns.rates)] {
        report.show(&format!("{what}, with {with}"), turns.of(1), Unit::PerSecond);
        report.judge("  as a share of without", turns.ratio(), Unit::Percent, Goal::AtLeast(0.85));
    }
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let (mut embedded, mut shared) = (Both::default(), Both::default());
    let server = world::server()?;
    for _ in 0..sizes.turns {
        let files = directory();
        let new = async |name: &'static str| {
            let store = RedbStore::open(files.path().join(name)).map_err(|error| error.to_string())?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        };
        embedded.push(turn(sizes, new).await?);
        let new = async |_| {
            let store = world::open(world::database(&server)?.url()).await?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        };
        shared.push(turn(sizes, new).await?);
    }
    let n = sizes.lanes * DEEP;
    report.group(&format!("{n} jobs of {} tenants through one node, {} turns", sizes.lanes, sizes.turns));
    show(report, "embedded store", &embedded);
    show(report, "PostgreSQL", &shared);
    Ok(())
}
