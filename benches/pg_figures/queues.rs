//! What it costs that the jobs of a process lie in many queues.

use std::sync::Arc;

use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::Tenant;
use hodei_core::job::NewJob;
use hodei_core::store::Store;

use crate::Sizes;
use crate::world::{self, Turns};

const QUEUES: usize = 64;

fn in_queues(n: usize, queues: usize) -> Vec<NewJob> {
    world::jobs(n, |_| Tenant::default(), |n, spec| spec.queue(format!("queue-{}", n % queues)))
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let server = world::server()?;
    let mut turns = Turns::default();
    for _ in 0..sizes.turns {
        let mut rates = [0.0; 2];
        for (rate, queues) in rates.iter_mut().zip([1, QUEUES]) {
            let store: Arc<dyn Store> = Arc::new(world::open(world::database(&server)?.url()).await?);
            *rate = world::drain(&store, in_queues(sizes.burn, queues)).await?;
        }
        turns.push(rates[0], rates[1]);
    }
    report.group(&format!("{} jobs through one node, {} turns", sizes.burn, sizes.turns));
    report.show("in one queue", turns.of(0), Unit::PerSecond);
    report.show(&format!("in {QUEUES} queues"), turns.of(1), Unit::PerSecond);
    report.judge("  as a share of one queue", turns.ratio(), Unit::Percent, Goal::AtLeast(0.9));
    Ok(())
}
