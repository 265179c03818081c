//! What a publisher pays for subscribers that hear little.

use std::time::Instant;

use hodei_benches::report::{Goal, Report, Unit};
use hodei_bus::Bus;
use hodei_core::bus::{EventBus, EventFilter, Overflow, SubscribeOptions, Subscription};
use hodei_core::event::{Event, Progress};
use hodei_core::job::Epoch;
use hodei_core::{JobId, Tenant};

use crate::Sizes;

fn events(jobs: usize) -> Vec<Event> {
    let tenant = Tenant::default();
    let event = |n: usize| {
        let job = JobId::from_parts(n as u64, tenant.slot(), n as u64);
        Event::Progress(Progress {
            job,
            tenant: tenant.clone(),
            epoch: Epoch::from_number(1),
            done: 0,
            total: 0,
        })
    };
    (0..jobs).map(event).collect()
}

/// Nanoseconds for an event that one of the subscribers wants, published alone, and in batches of 100.
fn cost(subscribers: usize, sizes: Sizes) -> [f64; 2] {
    let bus = Bus::new();
    let events = events(subscribers);
    let options = SubscribeOptions { overflow: Overflow::DropOldest, capacity: 4 };
    let listed: Vec<Box<dyn Subscription>> = events
        .iter()
        .map(|event| bus.subscribe(EventFilter::all().job(event.job().expect("one")), options))
        .collect();
    // Every mailbox is full and has its memory.
    (0..8).for_each(|_| bus.publish_or_gap(&events));
    let batch: Vec<Event> = events.iter().cycle().take(100).cloned().collect();
    let single = timed(sizes.filtered, events.iter().cycle().map(std::slice::from_ref), &bus);
    let batches = timed(sizes.filtered, std::iter::repeat(batch.as_slice()), &bus);
    drop(listed);
    [single, batches]
}

fn timed<'a>(events: usize, batches: impl Iterator<Item = &'a [Event]>, bus: &Bus) -> f64 {
    let (start, mut done) = (Instant::now(), 0);
    for batch in batches {
        bus.publish_or_gap(batch);
        done += batch.len();
        if done >= events {
            break;
        }
    }
    start.elapsed().as_nanos() as f64 / done as f64
}

/// Measures one subscriber and many, each of which hears the events of its own job.
pub(crate) fn figures(sizes: Sizes, report: &mut Report) {
    report.group("Publishing an event that one subscriber wants, each filtered on its own job (ns)");
    let mut best = [[f64::MAX; 2]; 2];
    for _ in 0..sizes.rounds {
        for (index, subscribers) in [1, sizes.subscribers].into_iter().enumerate() {
            let found = cost(subscribers, sizes);
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
