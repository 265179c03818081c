//! What limits cost: jobs of many tenants, each with a limit of its own, beside the same without.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use hodei_benches::directory;
use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::job::NewJob;
use hodei_core::store::{Limit, Policies, Store};
use hodei_core::{Name, Tenant};
use hodei_store_redb::RedbStore;

use crate::Sizes;
use crate::world::{self, Turns};

/// How many jobs each tenant has, and how many of them may run at once.
const DEEP: usize = 5;
const MOST: u32 = 3;
const KEY: &str = "own";
/// How many limits are set at once.
const TOGETHER: usize = 16;

fn tenant(n: usize) -> Tenant {
    Tenant::new(format!("tenant-{n}")).expect("a valid name")
}

fn spread(n: usize, tenants: usize, limited: bool) -> Vec<NewJob> {
    let with = |_, spec: hodei_core::job::JobSpecBuilder| if limited { spec.limited_by(KEY) } else { spec };
    world::jobs(n, |n| tenant(n % tenants), with)
}

/// Gives each tenant a limit.
async fn limit(store: &Arc<dyn Store>, tenants: usize) -> Result<(), String> {
    let set = |n| {
        let limit = Limit::key(tenant(n), Name::literal(KEY), MOST);
        let store = Arc::clone(store);
        async move { Policies::set_limit(&*store, limit).await }
    };
    let setting = stream::iter(0..tenants).map(set).buffer_unordered(TOGETHER);
    setting.try_for_each(|()| async { Ok(()) }).await.map_err(|error| error.to_string())
}

/// Drains the load without limits and with them, each from a new store.
async fn turn<F, Fut>(sizes: Sizes, new: F) -> Result<[f64; 2], String>
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Result<Arc<dyn Store>, String>>,
{
    let n = sizes.lanes * DEEP;
    let store = new("without").await?;
    let first = world::drain(&store, spread(n, sizes.lanes, false)).await?;
    let store = new("with").await?;
    limit(&store, sizes.lanes).await?;
    Ok([first, world::drain(&store, spread(n, sizes.lanes, true)).await?])
}

fn show(report: &mut Report, what: &str, turns: &Turns) {
    report.show(&format!("{what}, without limits"), turns.of(0), Unit::PerSecond);
    report.show(&format!("{what}, with limits"), turns.of(1), Unit::PerSecond);
    report.judge("  as a share of without", turns.ratio(), Unit::Percent, Goal::AtLeast(0.85));
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let (mut embedded, mut shared) = (Turns::default(), Turns::default());
    let server = world::server()?;
    for _ in 0..sizes.turns {
        let files = directory();
        let new = async |name: &'static str| {
            let store = RedbStore::open(files.path().join(name)).map_err(|error| error.to_string())?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        };
        let [first, second] = turn(sizes, new).await?;
        embedded.push(first, second);
        let new = async |_| {
            let store = world::open(world::database(&server)?.url()).await?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        };
        let [first, second] = turn(sizes, new).await?;
        shared.push(first, second);
    }
    let n = sizes.lanes * DEEP;
    report.group(&format!("{n} jobs of {} tenants through one node, {} turns", sizes.lanes, sizes.turns));
    show(report, "embedded store", &embedded);
    show(report, "PostgreSQL", &shared);
    Ok(())
}
