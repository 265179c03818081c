//! Decisions: from the queue to a worker, and what two dispatchers decide beside each other.

use std::collections::VecDeque;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::Timestamp;
use hodei_core::gateway::Offer;
use hodei_core::job::{Priority, Request, Resources, Runs};
use hodei_core::text::{TextMap, Texts};
use hodei_sched::balance::{Balancer, ConsistentHash, LeastLoaded, RoundRobin, TwoChoices};
use hodei_sched::machine::placement::{Asked, Fleet, WorkerId};
use hodei_sched::queue::{Ageing, ClassId, Entry, Intake, LaneId, Parcel, ReadyQueue, Seat, seats};

use crate::queue::Draw;
use crate::{Sizes, elsewhere};

/// Submissions are taken in, and jobs decided, in batches of at most as many.
const BATCH: usize = 256;
/// So many jobs are handed over at once at most.
const LENT_MAX: usize = 32 * BATCH;
/// A job's number is in the lower bits of what the queue has of it, what was drawn for it in the upper ones.
const NUMBER_BITS: u32 = 32;

/// The parts that a dispatcher decides with, and nothing else of it: a queue, a fleet and a balancer.
struct Dispatcher {
    queue: ReadyQueue<u64>,
    lanes: Vec<LaneId>,
    fleet: Fleet,
    balancer: Box<dyn Balancer>,
    /// Where each running job is, in the order in which they began.
    running: VecDeque<(WorkerId, ClassId)>,
    now: i64,
}

fn offer(slots: u32, cpu: u64) -> Offer {
    let capacity = Resources::none().cpu_millis(cpu).memory(cpu << 20);
    Offer { runs: vec![Runs::Command], capacity, slots, labels: TextMap::default() }
}

impl Dispatcher {
    /// Makes a dispatcher of so many workers, and a lane for each class of jobs.
    fn new(workers: usize, slots: u32, classes: usize, balancer: Box<dyn Balancer>) -> Self {
        let ageing = Ageing { every: Duration::from_secs(60), ceiling: Priority::MAX };
        let (mut queue, mut fleet) = (ReadyQueue::new(Some(ageing)), Fleet::new());
        for key in 0..workers as u64 {
            fleet.join(&offer(slots, 16_000), key);
        }
        let tenant = queue.open_share(None, 1);
        let lanes = (0..classes as u64)
            .map(|n| {
                let cpu = if classes == 1 { 10 } else { 100 + 37 * n };
                let resources = Resources::none().cpu_millis(cpu).memory(cpu << 18);
                let request = Request { runs: Runs::Command, resources, limit_keys: Texts::default() };
                let class = fleet.class(&request, 0);
                fleet.count(class);
                queue.open_lane(tenant, class, 1)
            })
            .collect();
        Self { queue, lanes, fleet, balancer, running: VecDeque::new(), now: 0 }
    }

    fn fill(&mut self, jobs: usize) {
        let mut draw = Draw(11);
        for job in 0..jobs as u64 {
            let entry = self.entry(job | draw.next() >> NUMBER_BITS << NUMBER_BITS);
            self.push(entry);
        }
    }

    /// A job is of the same lane and level wherever it comes.
    fn entry(&self, job: u64) -> Entry<u64> {
        let drawn = job >> NUMBER_BITS;
        let lane = self.lanes[usize::try_from(drawn / 8 % self.lanes.len() as u64).unwrap_or(0)];
        let level = Priority::new(u8::try_from(drawn % 8).unwrap_or(0)).unwrap_or_default();
        Entry { item: job, lane, level }
    }

    fn push(&mut self, entry: Entry<u64>) {
        self.now += 1;
        self.queue.push_entry(entry, Timestamp::from_micros(self.now));
    }

    /// Decides once: the next job that finds room is given to a worker. Nothing, when none does.
    fn decide(&mut self) -> Option<u64> {
        while let Some(next) = self.queue.peek() {
            let asked = Asked { class: next.class, level: next.level, key: *next.item };
            let Some(worker) = self.fleet.place(asked, &mut *self.balancer) else {
                self.queue.hold(asked.class);
                self.fleet.hold(asked.class, asked.level);
                continue;
            };
            self.running.push_back((worker, asked.class));
            return self.queue.pop().map(|popped| popped.item);
        }
        None
    }

    /// Ends a job, and lets those go that may find room now.
    fn end(&mut self, place: usize) {
        if let Some((worker, class)) = self.running.swap_remove_back(place) {
            self.fleet.release(worker, class);
        }
        let held: Vec<_> = self.queue.held().collect();
        for (class, _) in held.into_iter().filter(|(class, level)| self.fleet.may_have_room(*class, *level)) {
            self.queue.let_go(class);
        }
    }

    /// As many ends as begin, once the fleet is half full.
    fn end_oldest(&mut self, keep: usize) {
        while self.running.len() > keep
            && let Some((worker, class)) = self.running.pop_front()
        {
            self.fleet.release(worker, class);
        }
    }
}

pub(crate) fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let queued = sizes.preload * 10;
    report.group(&format!("enqueue + decide + assign, {queued} jobs alike queued, 1,000 workers"));
    let balancers: [(&str, Box<dyn Balancer>); 3] = [
        ("least loaded", Box::new(LeastLoaded)),
        ("round robin", Box::new(RoundRobin::new())),
        ("two choices", Box::new(TwoChoices::seeded(1))),
    ];
    for (name, balancer) in balancers {
        let rounds = 0..sizes.rounds;
        let best = rounds.map(|_| alike(&*balancer, queued, sizes.pairs)).fold(f64::MAX, f64::min);
        report.judge(&format!("{name}, each"), best, Unit::Micros, Goal::AtMost(1.0));
    }
    elsewhere::costs(report);
    let workers = if sizes.preload < 10_000 { 500 } else { 10_000 };
    report.group(&format!(
        "one decision, {workers} workers, 200 classes, {queued} jobs queued, the fleet full"
    ));
    let mut best = [f64::MAX; 2];
    for _ in 0..sizes.rounds {
        let [p50, p99] = mixed(&LeastLoaded, workers, queued, sizes.pairs / 100)?;
        best = [best[0].min(p50), best[1].min(p99)];
    }
    report.judge("p50", best[0], Unit::Micros, Goal::AtMost(20.0));
    report.judge("p99", best[1], Unit::Micros, Goal::AtMost(200.0));
    let [p50, p99] = mixed(&ConsistentHash::new(), workers, queued, sizes.pairs / 100)?;
    report.judge("consistent hash, p50", p50, Unit::Micros, Goal::AtMost(20.0));
    report.judge("consistent hash, p99", p99, Unit::Micros, Goal::AtMost(200.0));
    let change = ring_changes(workers, sizes.pairs / 1_000);
    report.judge(
        "consistent hash, where a worker has come or gone, each",
        change,
        Unit::Micros,
        Goal::AtMost(200.0),
    );
    Ok(())
}

/// What a job costs from its submission to its worker, in microseconds.
fn alike(balancer: &dyn Balancer, queued: usize, jobs: usize) -> f64 {
    let mut dispatcher = Dispatcher::new(1_000, 1_000, 1, balancer.another());
    dispatcher.fill(queued);
    let intake = Intake::new(usize::MAX);
    let mut draw = Draw(13);
    let start = Instant::now();
    for _ in 0..jobs / BATCH {
        for job in 0..BATCH as u64 {
            let entry = dispatcher.entry(job | draw.next() >> NUMBER_BITS << NUMBER_BITS);
            let taken = intake.push(entry);
            debug_assert!(taken.is_ok());
        }
        intake.drain(BATCH, |entry| dispatcher.push(entry));
        dispatcher.queue.advance(Timestamp::from_micros(dispatcher.now));
        for _ in 0..BATCH {
            assert!(dispatcher.decide().is_some(), "there is room");
        }
        dispatcher.end_oldest(500_000);
    }
    start.elapsed().as_secs_f64() * 1e6 / (jobs / BATCH * BATCH) as f64
}

/// What a decision costs by a ring in which a worker has come or gone since the last one, in microseconds.
fn ring_changes(workers: usize, changes: usize) -> f64 {
    let mut dispatcher = Dispatcher::new(workers, 16, 1, Box::new(ConsistentHash::new()));
    dispatcher.fill(2 * changes + 1);
    assert!(dispatcher.decide().is_some(), "there is room");
    let (mut there, mut spent) = (None, Duration::ZERO);
    for key in 0..2 * changes as u64 {
        match there.take() {
            Some(worker) => dispatcher.fleet.leave(worker),
            None => there = Some(dispatcher.fleet.join(&offer(16, 16_000), workers as u64 + key)),
        }
        let start = Instant::now();
        let decided = dispatcher.decide();
        spent += start.elapsed();
        assert!(decided.is_some(), "there is room");
        // Nothing stays on one that goes.
        dispatcher.end_oldest(0);
    }
    spent.as_secs_f64() * 1e6 / (2 * changes) as f64
}

/// The times of decisions when the fleet is full and a job ends here and there, in microseconds: p50 and p99.
fn mixed(
    balancer: &dyn Balancer,
    workers: usize,
    queued: usize,
    decisions: usize,
) -> Result<[f64; 2], String> {
    let mut dispatcher = Dispatcher::new(workers, 16, 200, balancer.another());
    dispatcher.fill(queued);
    while dispatcher.decide().is_some() {}
    let full = dispatcher.running.len();
    let mut draw = Draw(17);
    let mut times = Vec::with_capacity(decisions);
    while times.len() < decisions {
        let place = usize::try_from(draw.next() % dispatcher.running.len() as u64).unwrap_or(0);
        let start = Instant::now();
        dispatcher.end(place);
        let mut decided = dispatcher.decide().is_some();
        times.push(start.elapsed());
        // What else finds room is decided too.
        while decided {
            decided = dispatcher.decide().is_some();
        }
        if dispatcher.queue.len() < queued / 2 {
            return Err("the queue has run low".to_owned());
        }
    }
    if dispatcher.running.len() < full / 2 {
        return Err(format!("of {full} running jobs {} are left", dispatcher.running.len()));
    }
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e6;
    Ok([at(50), at(99)])
}

/// One dispatcher, and two that share the workers and hand each other work, all of which comes to the first one. Each has a queue and
/// workers of its own, and there is no store: what dispatchers take from each other there is `over_one`'s to say.
pub(crate) fn beside(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let jobs = sizes.pairs;
    report.group(
        "decisions of dispatchers beside each other, each with its part of 1,000 workers, without a store",
    );
    let (mut one, mut even, mut uneven, mut worst) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
    for _ in 0..sizes.rounds {
        one = one.max(together(1, jobs, false)?.0);
        even = even.max(together(2, jobs, false)?.0);
        let (rate, conflicts) = together(2, jobs, true)?;
        (uneven, worst) = (uneven.max(rate), worst.max(conflicts));
    }
    report.show("one", one, Unit::PerSecond);
    report.show("two, each with half of the work", even, Unit::PerSecond);
    report.judge("  as a multiple", even / one, Unit::Times, Goal::AtLeast(1.7));
    report.show("two, all work with one of them at first", uneven, Unit::PerSecond);
    report.judge("  as a multiple", uneven / one, Unit::Times, Goal::AtLeast(1.7));
    report.judge("  asked in vain, of all decisions", worst, Unit::Percent, Goal::AtMost(0.02));
    Ok(())
}

/// Decides so many jobs with so many dispatchers; returns decisions per second, and how many of them were conflicts.
fn together(dispatchers: usize, jobs: usize, uneven: bool) -> Result<(f64, f64), String> {
    let decided = AtomicUsize::new(0);
    let barrier = Barrier::new(dispatchers + 1);
    let seats = seats::<u64>(dispatchers);
    let results = std::thread::scope(|scope| {
        let handles: Vec<_> = seats
            .into_iter()
            .map(|seat| {
                let (decided, barrier) = (&decided, &barrier);
                scope.spawn(move || {
                    let mut dispatcher =
                        Dispatcher::new(1_000 / dispatchers, 1_000, 1, Box::new(LeastLoaded));
                    dispatcher.fill(match (uneven, seat.number()) {
                        (false, _) => jobs / dispatchers,
                        (true, 0) => jobs,
                        (true, _) => 0,
                    });
                    barrier.wait();
                    serve(dispatcher, seat, decided, jobs / dispatchers * dispatchers)
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let results: Vec<(Vec<u64>, u64)> =
            handles.into_iter().map(|handle| handle.join().expect("a dispatcher ends")).collect();
        (results, start.elapsed())
    });
    let (results, took) = results;
    // Each job is decided once, by one of them.
    let conflicts: u64 = results.iter().map(|(_, conflicts)| conflicts).sum();
    let total: usize = results.iter().map(|(jobs, _)| jobs.len()).sum();
    if uneven {
        let mut all: Vec<u64> = results.into_iter().flat_map(|(jobs, _)| jobs).collect();
        all.sort_unstable();
        all.dedup();
        if all.len() != total {
            return Err(format!("{total} decisions over {} jobs", all.len()));
        }
    }
    Ok((total as f64 / took.as_secs_f64(), conflicts as f64 / total as f64))
}

/// Decides until all jobs are decided; returns those that were decided here, and how often it asked in vain.
fn serve(
    mut dispatcher: Dispatcher,
    mut seat: Seat<u64>,
    decided: &AtomicUsize,
    jobs: usize,
) -> (Vec<u64>, u64) {
    let mut mine = Vec::with_capacity(jobs);
    let mut popped = Vec::with_capacity(LENT_MAX);
    loop {
        while let Some(parcel) = seat.take() {
            match parcel {
                Parcel::Asked(by, _) => {
                    dispatcher.queue.pop_batch((dispatcher.queue.len() / 2).min(LENT_MAX), &mut popped);
                    let back = seat.give(by, popped.drain(..).map(|popped| popped.item).collect());
                    assert!(back.is_empty(), "the other one is there until all is decided");
                }
                Parcel::Given(_, jobs) => {
                    for job in jobs {
                        let entry = dispatcher.entry(job);
                        dispatcher.push(entry);
                    }
                }
            }
        }
        let before = mine.len();
        mine.extend(std::iter::from_fn(|| dispatcher.decide()).take(BATCH));
        dispatcher.end_oldest(100_000);
        let n = mine.len() - before;
        seat.show(dispatcher.queue.len());
        // Asked for before the last one is decided, so that nobody waits for an answer.
        let asked = dispatcher.queue.len() < 2 * BATCH && seat.ask(usize::MAX);
        if n > 0 {
            decided.fetch_add(n, Ordering::Relaxed);
        } else if decided.load(Ordering::Relaxed) >= jobs {
            return (mine, seat.asked().1);
        } else if !asked {
            std::hint::spin_loop();
        }
    }
}
