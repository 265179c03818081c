//! The bus over a real NATS server, which is killed.

use std::time::{Duration, Instant};

use hodei_bus::nats::{NatsBus, NatsOptions, Start};
use hodei_core::bus::{Delivery, EventBus, EventFilter, Overflow, SubscribeOptions, Subscription};
use hodei_core::event::{Event, JobEvent, Progress};
use hodei_core::job::{Cause, Epoch, State};
use hodei_core::{ErrorKind, JobId, Tenant, Timestamp};
use hodei_test_servers::{Nats, Server as _};

/// How long a test waits before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn job(number: u64) -> JobId {
    JobId::from_parts(number, Tenant::default().slot(), 0)
}

fn moved(number: u64, version: u32) -> Event {
    Event::Job(JobEvent {
        job: job(number),
        tenant: Tenant::default(),
        at: Timestamp::EPOCH,
        epoch: Epoch::from_number(1),
        version,
        attempt: 0,
        from: None,
        to: State::Pending,
        cause: Cause::Submitted,
    })
}

fn progress(done: u32) -> Event {
    let tenant = Tenant::default();
    Event::Progress(Progress { job: job(0), tenant, epoch: Epoch::from_number(1), done, total: 0 })
}

async fn bus(server: &Nats) -> NatsBus {
    let end = Instant::now() + PATIENCE;
    loop {
        match NatsBus::connect(&server.url(), NatsOptions::default()).await {
            Ok(bus) => return bus,
            // A request has two seconds, which may pass on a busy machine.
            Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error}"),
        }
    }
}

fn everything(bus: &NatsBus) -> Box<dyn Subscription> {
    let options = SubscribeOptions { overflow: Overflow::Block, capacity: 1_000 };
    bus.subscribe(EventFilter::all(), options)
}

async fn heard(subscription: &mut dyn Subscription, n: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < n {
        for delivery in tokio::time::timeout(PATIENCE, subscription.recv(1_000)).await.expect("more comes") {
            match delivery {
                Delivery::Event(event) => events.push(event),
                missed => panic!("nothing is missed: {missed:?}"),
            }
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_hear_each_other_and_themselves() {
    let server = Nats::start().unwrap();
    let (a, b) = (bus(&server).await, bus(&server).await);
    let mut hears = [everything(&a), everything(&b)];
    let mut one = b.subscribe(EventFilter::all().job(job(7)), SubscribeOptions::default());
    a.publish((0..100).map(|n| moved(n, 1)).collect(), PATIENCE).await.unwrap();
    for subscription in &mut hears {
        assert_eq!(heard(&mut **subscription, 100).await, (0..100).map(|n| moved(n, 1)).collect::<Vec<_>>());
    }
    b.try_publish(&[progress(1)]).unwrap();
    for subscription in &mut hears {
        assert_eq!(heard(&mut **subscription, 1).await, [progress(1)]);
    }
    assert_eq!(heard(&mut *one, 1).await, [moved(7, 1)]);
}

/// Two nodes that both tail one log publish everything twice; it is heard once.
#[tokio::test(flavor = "multi_thread")]
async fn a_transition_is_heard_once_whoever_publishes_it() {
    let server = Nats::start().unwrap();
    let (a, b) = (bus(&server).await, bus(&server).await);
    let mut hears = everything(&a);
    let events: Vec<Event> = (0..500).flat_map(|n| [moved(n, 1), moved(n, 2)]).collect();
    a.publish(events.clone(), PATIENCE).await.unwrap();
    b.publish(events, PATIENCE).await.unwrap();
    b.flush(PATIENCE).await.unwrap();
    a.flush(PATIENCE).await.unwrap();
    b.publish(vec![progress(1)], PATIENCE).await.unwrap();
    let heard = heard(&mut *hears, 1_001).await;
    assert_eq!(heard.iter().filter(|event| **event == progress(1)).count(), 1);
    let mut transitions: Vec<_> = heard.iter().filter(|event| **event != progress(1)).collect();
    assert_eq!(transitions.len(), 1_000);
    transitions.dedup();
    assert_eq!(transitions.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_goes_on_behind_what_it_has_read() {
    let server = Nats::start().unwrap();
    let a = bus(&server).await;
    let mut hears = everything(&a);
    a.publish((0..10).map(progress).collect(), PATIENCE).await.unwrap();
    heard(&mut *hears, 10).await;
    let place = loop {
        let place = a.place();
        if place.sequence > 0 {
            break place;
        }
        tokio::task::yield_now().await;
    };
    drop((hears, a));
    let c = bus(&server).await;
    c.publish((10..20).map(progress).collect(), PATIENCE).await.unwrap();
    c.flush(PATIENCE).await.unwrap();
    for (start, expected) in [(Start::After(place), 10_u32), (Start::Oldest, 0)] {
        let options = NatsOptions::default().start(start);
        let b = NatsBus::connect(&server.url(), options).await.unwrap();
        // Nothing is read before somebody listens.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut hears = everything(&b);
        let expected: Vec<Event> = (expected..20).map(progress).collect();
        let heard = heard(&mut *hears, expected.len()).await;
        assert_eq!(heard, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_a_bounded_number_waits_and_the_rest_is_told() {
    let server = Nats::start().unwrap();
    let options = NatsOptions::default().capacity(100);
    let a = NatsBus::connect(&server.url(), options).await.unwrap();
    let mut hears = everything(&a);
    server.kill9();
    a.publish((0..60).map(progress).collect(), PATIENCE).await.unwrap();
    let error = a.try_publish(&(60..160).map(progress).collect::<Vec<_>>()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    let full = a.publish((60..160).map(progress).collect(), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((full.kind(), full.context("unpublished")), (ErrorKind::Timeout, Some("60")));
    a.publish_or_gap(&(100..107).map(progress).collect::<Vec<_>>());
    server.restart().unwrap();
    let expected: Vec<i64> = (0..100).chain([-7]).collect();
    assert_eq!(shown(&mut *hears, 101).await, expected);
    a.publish(vec![progress(200)], PATIENCE).await.unwrap();
    assert_eq!(shown(&mut *hears, 1).await, [200]);
    assert_eq!((hears.stats().missed, a.stats().missed), (7, 7));
}

/// Takes so many deliveries: progress as its number, a gap as a negative one.
async fn shown(subscription: &mut dyn Subscription, n: usize) -> Vec<i64> {
    let mut shown = Vec::new();
    while shown.len() < n {
        for delivery in
            tokio::time::timeout(PATIENCE, subscription.recv(n - shown.len())).await.expect("more comes")
        {
            shown.push(match delivery {
                Delivery::Event(Event::Progress(event)) => i64::from(event.done),
                Delivery::Lagged { missed } => -i64::try_from(missed).unwrap(),
                other => panic!("{other:?}"),
            });
        }
    }
    shown
}

/// A stream that was deleted is made anew, by those who publish and by those who listen; that something may be lost is told,
/// and what the new one has from the beginning is heard, though it was already longer than the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_gone_comes_back() {
    let server = Nats::start().unwrap();
    let (a, b) = (bus(&server).await, bus(&server).await);
    let mut hears = everything(&b);
    a.publish(vec![progress(0)], PATIENCE).await.unwrap();
    assert_eq!(shown(&mut *hears, 1).await, [0]);
    let place = b.place();
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    context.delete_stream("hodei").await.unwrap();
    for n in 1..=3 {
        a.publish(vec![progress(n)], PATIENCE).await.unwrap();
        a.flush(PATIENCE).await.unwrap();
    }
    assert_eq!(shown(&mut *hears, 4).await, [-1, 1, 2, 3]);
    // Who comes back with a place in the old one begins anew, and knows that it does.
    let options = NatsOptions::default().start(Start::After(place));
    let c = NatsBus::connect(&server.url(), options).await.unwrap();
    let mut hears = everything(&c);
    assert_eq!(shown(&mut *hears, 4).await, [-1, 1, 2, 3]);
}

/// What waits for a subscriber is behind no place: after a crash it comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_where_every_subscriber_is() {
    let server = Nats::start().unwrap();
    let a = bus(&server).await;
    let filters = [EventFilter::all(), EventFilter::all().job(job(0))];
    let mut hears = filters.map(|filter| a.subscribe(filter, SubscribeOptions::default()));
    let start = a.place();
    for n in 0..5 {
        a.publish(vec![progress(n)], PATIENCE).await.unwrap();
        a.flush(PATIENCE).await.unwrap();
    }
    for index in [0, 1] {
        assert_eq!(shown(&mut *hears[index], 1).await, [0]);
        let expected = start.sequence + index as u64;
        assert_eq!(a.place().sequence, expected);
        while index == 0 && hears[0].stats().depth < 4 {
            tokio::task::yield_now().await;
        }
    }
    for hears in &mut hears {
        assert_eq!(shown(&mut **hears, 4).await, [1, 2, 3, 4]);
    }
    while a.place().sequence < start.sequence + 5 {
        tokio::task::yield_now().await;
    }
}

/// A message is no larger than the server takes: it is sent in parts.
#[tokio::test(flavor = "multi_thread")]
async fn messages_fit_the_server() {
    let server = Nats::start_with("max_payload: 1024").unwrap();
    let a = bus(&server).await;
    let mut hears = everything(&a);
    a.publish((0..100).map(progress).collect(), PATIENCE).await.unwrap();
    let long = Tenant::new("t".repeat(120)).unwrap();
    let mut events: Vec<Event> = (100..110).map(progress).collect();
    if let Event::Progress(event) = &mut events[5] {
        event.tenant = long;
    }
    a.publish(events, PATIENCE).await.unwrap();
    a.flush(PATIENCE).await.unwrap();
    assert_eq!(shown(&mut *hears, 110).await, (0..110).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_in_vain_learns_what_the_server_said() {
    let server = Nats::start().unwrap();
    let a = bus(&server).await;
    server.kill9();
    a.publish(vec![progress(0)], PATIENCE).await.unwrap();
    let error = loop {
        let error = a.flush(Duration::from_millis(500)).await.unwrap_err();
        if error.context("server").is_some() {
            break error;
        }
    };
    assert_eq!((error.kind(), error.context("unsent")), (ErrorKind::Timeout, Some("1")));
}

/// Events in order while the server is killed again and again: none is lost, repeated or out of order.
#[tokio::test(flavor = "multi_thread")]
async fn kills() {
    let kills: u32 = std::env::var("HODEI_NATS_KILLS").map_or(2, |text| text.parse().expect("a number"));
    const STEP: u32 = 2_000;
    let server = Nats::start().unwrap();
    let (a, b) = (bus(&server).await, bus(&server).await);
    let mut hears = everything(&b);
    let total = STEP * (kills + 1);
    let listener = tokio::spawn(async move {
        let events = heard(&mut *hears, total as usize).await;
        for (expected, event) in (0..).zip(&events) {
            assert_eq!(*event, moved(u64::from(expected % 50), expected / 50 + 1), "number {expected}");
        }
    });
    let mut number = 0;
    for kill in 0..=kills {
        for _ in 0..STEP / 100 {
            let events = (number..number + 100).map(|n| moved(u64::from(n % 50), n / 50 + 1)).collect();
            a.publish(events, PATIENCE).await.unwrap();
            number += 100;
            // A kill finds some acknowledged, some under way and some waiting.
            if kill < kills && number % STEP == 100 * (1 + kill % 19) {
                server.kill9();
            }
        }
        if kill < kills {
            server.restart().unwrap();
        }
    }
    a.flush(PATIENCE).await.unwrap();
    tokio::time::timeout(PATIENCE, listener).await.expect("everything comes").unwrap();
    println!("{kills} kills, {total} events: none lost, none twice, all in order");
}

/// The rate of batches over the server on this machine; with many events it must be above 100,000 a second.
#[tokio::test(flavor = "multi_thread")]
async fn rate() {
    let events: u32 =
        std::env::var("HODEI_NATS_EVENTS").map_or(10_000, |text| text.parse().expect("a number"));
    let server = Nats::start().unwrap();
    let (a, b) = (bus(&server).await, bus(&server).await);
    let mut hears = everything(&b);
    let start = Instant::now();
    let sender = tokio::spawn(async move {
        for from in (0..events).step_by(1_000) {
            a.publish((from..from + 1_000).map(|n| moved(u64::from(n), 1)).collect(), PATIENCE)
                .await
                .unwrap();
        }
        a.flush(PATIENCE).await.unwrap();
    });
    let heard = heard(&mut *hears, events as usize).await;
    sender.await.unwrap();
    assert!(heard.iter().zip(0..).all(|(event, n)| *event == moved(n, 1)));
    let rate = f64::from(events) / start.elapsed().as_secs_f64();
    println!("{events} events: {rate:.0} /s");
    assert!(events < 100_000 || rate >= 100_000.0, "{rate:.0} /s");
}
