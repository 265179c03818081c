//! Who hears what: the bus finds its subscribers by lists, and asks nobody else.

use hodei_bus::Bus;
use hodei_core::bus::{Delivery, EventBus, EventFilter, SubscribeOptions};
use hodei_core::event::{Event, EventKind};
use hodei_core::job::{Cause, Epoch, State};
use hodei_core::store::Change;
use hodei_core::{JobId, Name, PipelineId, Tenant, Timestamp};
use proptest::prelude::*;

const STATES: [State; 3] = [State::Pending, State::Running, State::Failed];
const KINDS: [EventKind; 3] = [EventKind::Pending, EventKind::Running, EventKind::Failed];

fn tenant(n: u8) -> Tenant {
    Tenant::new(format!("t{n}")).unwrap()
}

fn queue(n: u8) -> Name {
    Name::new(format!("q{n}")).unwrap()
}

fn job(n: u8) -> JobId {
    JobId::from_parts(u64::from(n), tenant(0).slot(), 0)
}

fn pipeline(n: u8) -> PipelineId {
    PipelineId::from_parts(u64::from(n), tenant(0).slot(), 0)
}

fn change() -> impl Strategy<Value = Change> {
    (0..3_u8, 0..3_u8, proptest::option::of(0..2_u8), 0..4_u8, 0..3_usize).prop_map(|(t, q, p, j, state)| {
        Change {
            job: job(j),
            tenant: tenant(t),
            queue: Some(queue(q)),
            pipeline: p.map(pipeline),
            version: 1,
            from: None,
            to: STATES[state],
            cause: Cause::Submitted,
            attempt: 0,
            epoch: Epoch::default(),
            at: Timestamp::EPOCH,
        }
    })
}

fn filter() -> impl Strategy<Value = EventFilter> {
    let some = proptest::option::weighted;
    let kinds = proptest::collection::vec(0..3_usize, 0..3);
    let jobs = proptest::collection::vec(0..4_u8, 0..2);
    (some(0.4, 0..3_u8), some(0.4, 0..3_u8), some(0.2, 0..2_u8), jobs, kinds).prop_map(
        |(t, q, p, jobs, kinds)| {
            let mut filter = EventFilter::all();
            filter = t.into_iter().fold(filter, |filter, t| filter.tenant(tenant(t)));
            filter = q.into_iter().fold(filter, |filter, q| filter.queue(queue(q)));
            filter = p.into_iter().fold(filter, |filter, p| filter.pipeline(pipeline(p)));
            filter = jobs.into_iter().fold(filter, |filter, j| filter.job(job(j)));
            kinds.into_iter().fold(filter, |filter, kind| filter.kind(KINDS[kind]))
        },
    )
}

proptest! {
    /// Subscribers come and go; each hears exactly what passes its filter.
    #[test]
    fn each_hears_what_passes_its_filter(
        steps in proptest::collection::vec((filter(), any::<bool>(), proptest::collection::vec(change(), 0..6)), 1..12),
    ) {
        let bus = Bus::new();
        let mut all = Vec::new();
        for (filter, one_leaves, changes) in steps {
            if one_leaves && !all.is_empty() {
                all.swap_remove(all.len() / 2);
            }
            all.push((filter.clone(), bus.subscribe(filter, SubscribeOptions::default())));
            bus.publish_changes(&changes);
            for (filter, subscription) in &mut all {
                let passed = changes.iter().filter(|change| filter.passes(&change.keys()));
                let expected: Vec<Delivery> = passed.map(|change| Delivery::Event(Event::from(change))).collect();
                prop_assert_eq!(subscription.try_recv(100), expected, "{:?}", filter);
            }
            prop_assert_eq!(bus.stats().subscribers, all.len() as u64);
        }
        all.clear();
        prop_assert_eq!(bus.stats().subscribers, 0);
    }
}
