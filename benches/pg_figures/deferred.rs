//! What jobs that are not due for long cost those that are.

use std::sync::Arc;
use std::time::Duration;

use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::job::{JobSpec, NewJob};
use hodei_core::store::{Coordination, Store};

use crate::Sizes;
use crate::world::{self, Turns};

/// How far ahead the first of them is due: a day.
const AHEAD: Duration = Duration::from_secs(24 * 3_600);
/// How many are made at once.
const CHUNK: usize = 100_000;

/// Stores jobs that are due a day from now, a millisecond apart.
async fn defer(store: &Arc<dyn Store>, n: usize) -> Result<(), String> {
    let now = Coordination::now(&**store).await.map_err(|error| error.to_string())?;
    let spec: Arc<JobSpec> = Arc::new(world::spec(0).build().map_err(|error| error.to_string())?);
    let at = |n: usize| now.saturating_add(AHEAD + Duration::from_millis(n as u64));
    for first in (0..n).step_by(CHUNK) {
        let numbers = first..(first + CHUNK).min(n);
        let jobs = numbers.map(|n| NewJob::new(Arc::clone(&spec)).run_at(at(n))).collect();
        world::fill(store, jobs).await?;
    }
    Ok(())
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let server = world::server()?;
    let without: Arc<dyn Store> = Arc::new(world::open(world::database(&server)?.url()).await?);
    let with: Arc<dyn Store> = Arc::new(world::open(world::database(&server)?.url()).await?);
    defer(&with, sizes.deferred).await?;
    // What was written so far is nobody's burden.
    server.sql("postgres", "CHECKPOINT").map_err(|error| error.to_string())?;
    let mut turns = Turns::default();
    for _ in 0..sizes.turns {
        let first = world::drain(&without, world::plain(sizes.burn)).await?;
        turns.push(first, world::drain(&with, world::plain(sizes.burn)).await?);
    }
    report.group(&format!("{} jobs through one node, {} turns", sizes.burn, sizes.turns));
    report.show("alone", turns.of(0), Unit::PerSecond);
    report.show(&format!("beside {} deferred ones", sizes.deferred), turns.of(1), Unit::PerSecond);
    report.judge("  as a share of alone", turns.ratio(), Unit::Percent, Goal::AtLeast(0.9));
    Ok(())
}
