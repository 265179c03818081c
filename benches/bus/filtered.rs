//! What a publisher pays for subscribers that hear little.

use std::time::Instant;

use hodei_benches::report::{Goal, Report, Unit};
use hodei_bus::Bus;
use hodei_core::bus::{EventBus, EventFilter, Overflow, SubscribeOptions, Subscription};
use hodei_core::event::EventKind;
use hodei_core::job::{Cause, Epoch, State};
use hodei_core::store::Change;
use hodei_core::{JobId, Name, Tenant, Timestamp};

use crate::Sizes;

/// A way of hearing little: who wants what, and how it is published.
struct Way {
    name: &'static str,
    change: fn(usize) -> Change,
    filter: fn(&Change) -> EventFilter,
}

const WAYS: [Way; 2] = [
    Way {
        name: "its own job",
        change: |n| change(n, Tenant::default()),
        filter: |change| EventFilter::all().job(change.job),
    },
    Way {
        name: "its tenant's jobs of a queue that all have",
        change: |n| change(n, Tenant::new(format!("tenant-{n}")).expect("a name")),
        filter: |change| {
            let queue = change.queue.clone().expect("it has one");
            EventFilter::all().tenant(change.tenant.clone()).queue(queue).kind(EventKind::Running)
        },
    },
];

fn change(n: usize, tenant: Tenant) -> Change {
    Change {
        job: JobId::from_parts(n as u64, tenant.slot(), n as u64),
        tenant,
        queue: Some(Name::literal("default")),
        pipeline: None,
        version: 1,
        from: Some(State::Scheduled),
        to: State::Running,
        cause: Cause::Started,
        attempt: 1,
        epoch: Epoch::from_number(1),
        at: Timestamp::EPOCH,
    }
}

/// Nanoseconds for an event that one of the subscribers wants, published alone, and in batches of 100.
fn cost(way: &Way, subscribers: usize, sizes: Sizes) -> [f64; 2] {
    let bus = Bus::new();
    let changes: Vec<Change> = (0..subscribers).map(way.change).collect();
    let options = SubscribeOptions { overflow: Overflow::DropOldest, capacity: 4 };
    let listed: Vec<Box<dyn Subscription>> =
        changes.iter().map(|change| bus.subscribe((way.filter)(change), options)).collect();
    // Every mailbox is full and has its memory.
    (0..8).for_each(|_| bus.publish_changes(&changes));
    let batch: Vec<Change> = changes.iter().cycle().take(100).cloned().collect();
    let single = timed(sizes.filtered, changes.iter().cycle().map(std::slice::from_ref), &bus);
    let batches = timed(sizes.filtered, std::iter::repeat(batch.as_slice()), &bus);
    drop(listed);
    [single, batches]
}

fn timed<'a>(events: usize, batches: impl Iterator<Item = &'a [Change]>, bus: &Bus) -> f64 {
    let (start, mut done) = (Instant::now(), 0);
    for batch in batches {
        bus.publish_changes(batch);
        done += batch.len();
        if done >= events {
            break;
        }
    }
    start.elapsed().as_nanos() as f64 / done as f64
}

/// Measures one subscriber and many, each of which hears little.
pub(crate) fn figures(sizes: Sizes, report: &mut Report) {
    for way in &WAYS {
        report.group(&format!(
            "Publishing an event that one subscriber wants, each filtered on {} (ns)",
            way.name
        ));
        let mut best = [[f64::MAX; 2]; 2];
        for _ in 0..sizes.rounds {
            for (index, subscribers) in [1, sizes.subscribers].into_iter().enumerate() {
                let found = cost(way, subscribers, sizes);
                best[index] = std::array::from_fn(|how| best[index][how].min(found[how]));
            }
        }
        for (how, name) in ["alone", "in batches of 100"].into_iter().enumerate() {
            report.show(&format!("1 subscriber, {name}"), best[0][how], Unit::Plain);
            report.show(&format!("{} subscribers, {name}", sizes.subscribers), best[1][how], Unit::Plain);
            let ratio = best[1][how] / best[0][how];
            report.judge(&format!("many / one, {name}"), ratio, Unit::Times, Goal::AtMost(3.0));
        }
    }
}
