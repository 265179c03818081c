//! Replies that are lost: after each, nobody knows what happened until it is asked again.

use std::time::Duration;

use hodei_core::ErrorKind;
use hodei_core::job::{Finish, Output, Priority};
use hodei_core::store::{
    Applied, Coordination, Exchange, JobStore, Lane, Move, Pick, SubmitOptions, Submitted, Transition,
};
use hodei_core::testkit::history::{Recorder, RecordingStore, check};
use hodei_core::testkit::typical_job;
use hodei_core::{Error, OwnerId};
use hodei_store_pg::PgStore;
use hodei_test_servers::{Postgres, Proxy, Server};

use super::fleet::{Fleet, Store, TTL};
use super::variable::{Numbers, variable};

/// How often the connection is cut somewhere in the answers; `HODEI_PG_CUTS` sets another number.
const CUTS: u64 = 60;

/// A store behind a proxy.
async fn world() -> (Proxy, Store) {
    let postgres = Postgres::shared().expect("the servers start");
    let database = postgres.database().expect("the servers start");
    let proxy = Proxy::start(postgres.address()).expect("the servers start");
    let store = PgStore::builder(database.url_at(proxy.address()))
        .connections(2)
        .connect()
        .await
        .expect("the servers start");
    (proxy, RecordingStore::new(store, Recorder::new()))
}

/// A call whose reply was lost is answered when it is repeated.
fn unless_lost<R>(reply: Result<R, Error>) -> Option<R> {
    match reply {
        Ok(reply) => Some(reply),
        Err(error) => {
            let told = matches!(error.kind(), ErrorKind::Indeterminate | ErrorKind::Unavailable);
            assert!(told, "{error:?}");
            None
        }
    }
}

/// One job goes its whole way while the connection is cut after so many bytes of answers. Returns how many calls had to be
/// repeated, and of how many of those the first try turned out to have happened.
async fn one_life(store: &Store) -> (u64, u64) {
    let (mut repeated, mut happened) = (0, 0);
    let job = typical_job();
    let stored = loop {
        match unless_lost(store.submit(vec![job.clone()], SubmitOptions::each()).await) {
            Some(done) => break done.replies[0],
            None => repeated += 1,
        }
    };
    assert_eq!(stored.stored(), Some(job.id));
    happened += u64::from(matches!(stored, Submitted::Existing(_)));
    let owner = OwnerId::new("node").expect("a name");
    let lease = loop {
        match unless_lost(store.register(&owner, TTL * 10).await) {
            Some(lease) => break lease,
            None => repeated += 1,
        }
    };
    let lane = Lane { tenant: job.tenant.clone(), queue: job.spec.queue().clone(), class: job.spec.class() };
    let picks = vec![Pick { lane, floor: Priority::MIN, ceiling: Priority::MAX, n: 1 }];
    let ask = Exchange { owner: lease.clone(), transitions: Vec::new(), picks };
    let claimed = loop {
        if let Some(done) = unless_lost(store.exchange(ask.clone()).await) {
            break done.claimed;
        }
        repeated += 1;
        if let Some(held) = unless_lost(store.leases_of(&lease).await)
            && !held.is_empty()
        {
            happened += 1;
            break held;
        }
    };
    assert_eq!(claimed.iter().map(|claim| claim.job.id).collect::<Vec<_>>(), [job.id]);
    for step in [Move::Started { lease: None }, Move::Finished(Box::new(Finish::succeeded(Output::none())))] {
        let transitions = vec![Transition { job: job.id, epoch: claimed[0].job.epoch, step }];
        let tell = Exchange { owner: lease.clone(), transitions, picks: Vec::new() };
        let applied = loop {
            match unless_lost(store.exchange(tell.clone()).await) {
                // Part of it was not answered: it is told again.
                Some(done) if done.applied[0] == Applied::Unavailable => repeated += 1,
                Some(done) => break done.applied[0],
                None => repeated += 1,
            }
        };
        assert!(matches!(applied, Applied::Done | Applied::AlreadyApplied), "{applied:?}");
        happened += u64::from(applied == Applied::AlreadyApplied);
    }
    (repeated, happened)
}

/// How the server ends each answer, when a transaction is over.
const READY: &[u8] = b"Z\0\0\0\x05I";

#[tokio::test]
async fn a_submission_without_a_reply_is_indeterminate_and_done_once() {
    let (proxy, store) = world().await;
    let (mut unknown, mut tries) = (0, 0);
    while unknown < 5 {
        tries += 1;
        assert!(tries < 500, "only {unknown} replies to submissions were swallowed");
        // It may be the reply to something else: to a preparation, or to an announcement.
        let job = typical_job();
        proxy.cut_before(READY);
        let told = store.submit(vec![job.clone()], SubmitOptions::each()).await;
        let again = store.submit(vec![job.clone()], SubmitOptions::each()).await;
        match (told.map_err(|error| error.kind()), again.map(|done| done.replies)) {
            (Err(ErrorKind::Indeterminate), Ok(again)) => {
                unknown += u64::from(again == [Submitted::Existing(job.id)]);
            }
            (Ok(told), Ok(again)) => {
                assert_eq!(
                    (told.replies[0], again[0]),
                    (Submitted::New(job.id), Submitted::Existing(job.id))
                );
            }
            (_, Ok(again)) => assert_eq!(again, [Submitted::New(job.id)], "nothing had happened"),
            (_, Err(error)) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    store.survey().await.unwrap();
    let report = check(&store.recorder().history());
    assert!(report.is_clean(), "{report}");
}

#[tokio::test]
async fn a_cut_anywhere_in_the_answers_changes_nothing_but_the_number_of_tries() {
    let cuts = variable("HODEI_PG_CUTS", CUTS);
    let mut numbers = Numbers::new("HODEI_PG_CUTS_SEED");
    println!("HODEI_PG_CUTS_SEED: {numbers:?}");
    let (proxy, store) = world().await;
    one_life(&store).await;
    let (mut repeated, mut happened) = (0, 0);
    for _ in 0..cuts {
        proxy.cut_after(numbers.below(3_000));
        let (its_repeated, its_happened) = one_life(&store).await;
        (repeated, happened) = (repeated + its_repeated, happened + its_happened);
    }
    proxy.admit();
    store.survey().await.unwrap();
    let report = check(&store.recorder().history());
    println!("{} cuts, {repeated} calls repeated, {happened} of them had happened", proxy.cuts());
    assert!(report.is_clean(), "{report}");
    assert!(happened > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_under_load_lose_nothing() {
    let cuts = variable("HODEI_PG_CUTS", CUTS);
    let mut numbers = Numbers::new("HODEI_PG_CUTS_SEED");
    println!("HODEI_PG_CUTS_SEED: {numbers:?}");
    let postgres = Postgres::shared().unwrap();
    let database = postgres.database().unwrap();
    let proxy = Proxy::start(postgres.address()).unwrap();
    let url = database.url_at(proxy.address());
    let fleet = Fleet::start((0..2).map(|_| PgStore::builder(url.clone()).connections(4))).await;
    for n in 0..cuts {
        tokio::time::sleep(numbers.millis(5, 60)).await;
        match n % 3 {
            0 => proxy.cut_after(numbers.below(20_000)),
            1 => proxy.cut_before(READY),
            _ => proxy.cut(),
        }
        if n % 20 == 19 {
            proxy.hold();
            tokio::time::sleep(Duration::from_millis(200)).await;
            proxy.release();
        }
    }
    fleet.progress(1).await;
    let outcome = fleet.finish().await;
    println!("{cuts} cuts under load: {outcome}");
    assert!(outcome.unknown() > 0);
}
