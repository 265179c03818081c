//! Every interleaving that loom finds, and many that shuttle draws, of the shipped code; real threads otherwise.

use std::sync::Arc;

use super::sync::{AtomicUsize, Ordering};
use super::{Intake, Parcel, Seat, seats};

#[cfg(hodei_loom)]
fn explore(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(body);
}

#[cfg(hodei_shuttle)]
fn explore(body: impl Fn() + Sync + Send + 'static) {
    shuttle::check_random(body, 20_000);
}

#[cfg(not(any(hodei_loom, hodei_shuttle)))]
fn explore(body: impl Fn() + Sync + Send + 'static) {
    (0..2_000).for_each(|_| body());
}

#[cfg(hodei_loom)]
use loom::{future::block_on, thread};
#[cfg(hodei_shuttle)]
use shuttle::{future::block_on, thread};
#[cfg(not(any(hodei_loom, hodei_shuttle)))]
use std::thread;

#[cfg(not(any(hodei_loom, hodei_shuttle)))]
use futures_util::FutureExt as _;

#[cfg(not(any(hodei_loom, hodei_shuttle)))]
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = std::task::Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.poll_unpin(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn no_wake_up_is_lost_and_each_submitters_order_is_kept() {
    explore(|| {
        let intake = Arc::new(Intake::new(16));
        let submitters: Vec<_> = (0..2)
            .map(|submitter| {
                let intake = Arc::clone(&intake);
                thread::spawn(move || {
                    let items = if submitter == 0 { 2 } else { 1 };
                    (0..items).for_each(|item| intake.push((submitter, item)).expect("there is room"));
                })
            })
            .collect();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            block_on(intake.filled());
            intake.drain(16, |item| seen.push(item));
        }
        submitters.into_iter().for_each(|submitter| submitter.join().expect("it ends"));
        let of = |submitter| seen.iter().filter(move |(by, _)| *by == submitter).map(|(_, item)| *item);
        assert!(of(0).eq([0, 1]) && of(1).eq([0]));
    });
}

#[test]
fn what_came_before_a_drain_is_seen_by_it() {
    explore(|| {
        let intake = Arc::new(Intake::new(16));
        let other = {
            let intake = Arc::clone(&intake);
            thread::spawn(move || intake.push(1).expect("there is room"))
        };
        other.join().expect("it ends");
        let mut seen = Vec::new();
        intake.drain(16, |item: i32| seen.push(item));
        assert_eq!(seen, [1]);
    });
}

#[test]
fn an_owner_that_goes_wakes_itself_and_takes_nothing_more() {
    explore(|| {
        let intake = Arc::new(Intake::<u8>::new(16));
        let closer = {
            let intake = Arc::clone(&intake);
            thread::spawn(move || intake.close())
        };
        block_on(intake.filled());
        closer.join().expect("it ends");
        assert!(intake.is_closed() && intake.push(1).is_err());
    });
}

/// Asks, and waits for what is given; nothing when somebody else asks just then.
fn ask(mut seat: Seat<u32>) -> Vec<u32> {
    if !seat.ask(9) {
        return Vec::new();
    }
    loop {
        block_on(std::future::poll_fn(|cx| seat.poll_parcel(cx)));
        if let Some(Parcel::Given(_, jobs)) = seat.take() {
            return jobs;
        }
    }
}

#[test]
fn a_job_is_with_one_dispatcher_however_they_ask_each_other() {
    explore(|| {
        let [mut owner, first, second] = <[Seat<u32>; 3]>::try_from(seats(3)).expect("three seats");
        owner.show(4);
        let (over, ended) = (Arc::new(AtomicUsize::new(0)), Ordering::Acquire);
        let askers = [first, second].map(|seat| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                let got = ask(seat);
                over.fetch_add(1, Ordering::Release);
                got
            })
        });
        let mut had = vec![1, 2, 3, 4];
        while over.load(ended) < 2 {
            let Some(Parcel::Asked(by, _)) = owner.take() else {
                thread::yield_now();
                continue;
            };
            let given = had.split_off(had.len().div_ceil(2));
            had.extend(owner.give(by, given));
        }
        had.extend(askers.into_iter().flat_map(|asker| asker.join().expect("it ends")));
        had.sort_unstable();
        assert_eq!(had, [1, 2, 3, 4]);
    });
}
