//! What many lanes cost: asking which have work, and draining them.

use std::sync::Arc;
use std::time::Instant;

use hodei_benches::report::{Report, Unit};
use hodei_core::Tenant;
use hodei_core::job::NewJob;
use hodei_core::store::{Served, Store};
use hodei_test_servers::Postgres;

use crate::Sizes;
use crate::world::{self, Turns, percentile};

/// How often the heads are asked for.
const ASKED: usize = 40;
/// How many jobs each lane has when they are drained.
const DEEP: usize = 5;
/// In how many lanes there is work while all others are empty.
const FEW: usize = 10;

/// Jobs in so many lanes, each that of a tenant.
fn spread(n: usize, lanes: usize) -> Vec<NewJob> {
    let tenant = |n: usize| Tenant::new(format!("tenant-{}", n % lanes)).expect("a valid name");
    world::jobs(n, tenant, |_, spec| spec)
}

/// Asks for the heads again and again; returns how long that takes.
async fn asked(store: &Arc<dyn Store>, heads: usize) -> Result<[f64; 2], String> {
    let mut times = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let start = Instant::now();
        let lanes = store.lanes(&Served::default()).await.map_err(|error| error.to_string())?;
        times.push(start.elapsed());
        if lanes.heads.len() != heads {
            return Err(format!("{heads} lanes have work, {} were told", lanes.heads.len()));
        }
    }
    Ok([50, 99].map(|percent| percentile(&mut times, percent)))
}

async fn new(server: &Postgres) -> Result<Arc<dyn Store>, String> {
    Ok(Arc::new(world::open(world::database(server)?.url()).await?))
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let server = world::server()?;
    let n = sizes.lanes * DEEP;
    let mut turns = Turns::default();
    let (mut one, mut all, mut few) = ([0.0; 2], [0.0; 2], [0.0; 2]);
    for _ in 0..sizes.turns {
        let store = new(&server).await?;
        world::fill(&store, spread(FEW, 1)).await?;
        one = asked(&store, 1).await?;
        let first = world::drain(&new(&server).await?, spread(n, 1)).await?;
        let store = new(&server).await?;
        let second = world::drain(&store, spread(n, sizes.lanes)).await?;
        turns.push(first, second);
        world::fill(&store, spread(FEW, sizes.lanes)).await?;
        few = asked(&store, FEW).await?;
        world::fill(&store, spread(sizes.lanes, sizes.lanes)).await?;
        all = asked(&store, sizes.lanes).await?;
    }
    report.group(&format!("{} lanes, and {n} jobs through one node, {} turns", sizes.lanes, sizes.turns));
    let what = ["asking for the heads, p50", "asking for the heads, p99"];
    for (times, with) in [(one, 1), (few, FEW), (all, sizes.lanes)] {
        for (what, time) in what.iter().zip(times) {
            report.show(&format!("{what}, work in {with}"), time, Unit::Millis);
        }
    }
    report.show("drained, in one lane", turns.of(0), Unit::PerSecond);
    report.show(&format!("drained, in {} lanes", sizes.lanes), turns.of(1), Unit::PerSecond);
    report.show("  as a share of one lane", turns.ratio(), Unit::Percent);
    Ok(())
}
