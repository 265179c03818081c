//! Each rule as a table: what a move does to a record in each state, what its repetition is told, and what is refused.

use bytes::Bytes;

use super::*;
use crate::id::{JobId, OwnerId, Tenant};
use crate::job::{Finish, JobSpec, LogEnd, Stream};

const LOST_MAX: u16 = 2;
const WAIT: Duration = Duration::from_secs(7);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn lease(owner: &'static str) -> Lease {
    Lease { owner: OwnerId::new(owner).expect("a name"), incarnation: 1 }
}

fn id(n: u64) -> JobId {
    JobId::from_parts(n, Tenant::default().slot(), 0)
}

fn new_job(parents: &[(u64, Requires)]) -> NewJob {
    let spec = JobSpec::command(["true"]).build().expect("a valid spec");
    let parents = parents.iter().map(|(n, requires)| Parent { id: id(*n), requires: *requires });
    NewJob::new(spec).id(id(1)).after(parents)
}

fn failure() -> Failure {
    Failure::new(FailureClass::Error, "no")
}

fn manifest() -> Arc<Manifest> {
    let log = LogEnd { stream: Stream::Stdout, kept: 3, dropped: 0, crc32: 7 };
    Arc::new(Manifest { logs: vec![log], artifacts: Vec::new() })
}

fn finish(outcome: Outcome) -> Move {
    let output = Output::Inline(Bytes::from_static(b"out"));
    let spawn = Vec::new();
    Move::Finished(Box::new(Finish {
        outcome,
        output,
        manifest: Some(manifest()),
        spawn,
        ran: Duration::ZERO,
        memory: None,
    }))
}

/// Every move, with the name that the tables give it.
fn moves() -> Vec<(&'static str, Move)> {
    vec![
        ("started", Move::Started { lease: None }),
        ("handed", Move::Started { lease: Some(lease("session")) }),
        ("succeeded", finish(Outcome::Succeeded)),
        ("failed", finish(Outcome::Failed(failure()))),
        ("ended cancelled", finish(Outcome::Cancelled)),
        ("retried", Move::Retried { failure: failure(), wait: WAIT, manifest: Some(manifest()) }),
        ("snoozed", Move::Snoozed { wait: WAIT }),
        ("returned", Move::Returned),
        ("preempted", Move::Preempted),
        ("lost", Move::Lost { lost_max: LOST_MAX }),
        ("lost once too often", Move::Lost { lost_max: 1 }),
    ]
}

fn pending() -> Job {
    admit(new_job(&[]), at(0)).0
}

fn scheduled() -> Job {
    let mut job = pending();
    claim(&mut job, lease("node"), at(1)).expect("it is due");
    job
}

fn running() -> Job {
    let mut job = scheduled();
    step(&mut job, Move::Started { lease: None }, at(2));
    job
}

/// Running, and somebody asked for its end.
fn unwanted() -> Job {
    let mut job = running();
    assert_eq!(cancel(&mut job, at(2)), (CancelReply::Requested, None));
    job
}

fn ended(outcome: Outcome) -> Job {
    let mut job = running();
    step(&mut job, finish(outcome), at(3));
    job
}

/// Applies a move under the current epoch, which must be accepted.
fn step(job: &mut Job, step: Move, now: Timestamp) -> Change {
    let transition = Transition { job: job.id, epoch: job.epoch, step };
    let (applied, change) = apply(job, &transition, now);
    assert_eq!(applied, Applied::Done);
    change.expect("what is done is recorded")
}

/// A record in each state that nobody holds.
fn at_rest() -> Vec<Job> {
    let blocked = admit(new_job(&[(9, Requires::Success)]), at(0)).0;
    vec![
        blocked,
        pending(),
        ended(Outcome::Succeeded),
        ended(Outcome::Failed(failure())),
        ended(Outcome::Cancelled),
    ]
}

/// Where a move leads, why, and what it leaves of the attempt and adds to the losses.
type Row = (&'static str, Option<(State, Cause, u32, u16)>);

/// Holds every move to its row: one version more, the epoch as it was, the lease gone with the hold, the repetition
/// told apart, and where there is no row nothing changed.
fn check(from: impl Fn() -> Job, rows: &[Row]) {
    assert_eq!(rows.len(), moves().len(), "one row for each move");
    for ((name, step), (row, expected)) in moves().into_iter().zip(rows) {
        assert_eq!(name, *row);
        let before = from();
        let transition = Transition { job: before.id, epoch: before.epoch, step };
        let mut job = before.clone();
        let (applied, change) = apply(&mut job, &transition, at(10));
        let Some((state, cause, attempt, lost)) = *expected else {
            let repeated = before.state == State::Running && matches!(transition.step, Move::Started { .. });
            let refused = if repeated { Applied::AlreadyApplied } else { Applied::Illegal };
            assert_eq!((applied, change, job), (refused, None, before), "{name}");
            continue;
        };
        let moved = (applied, job.state, job.cause, job.attempt, job.lost_count);
        assert_eq!(moved, (Applied::Done, state, cause, attempt, lost), "{name}");
        assert_eq!(
            (job.version, job.epoch, job.moved_at),
            (before.version + 1, before.epoch, at(10)),
            "{name}"
        );
        assert_eq!(job.lease.is_some(), state.is_leased(), "{name}");
        assert!(!job.cancel_requested, "{name}: the request is settled");
        assert_eq!(change, Some(Change::of(&job, Some(before.state))), "{name}");
        let settled = job.clone();
        assert_eq!(apply(&mut job, &transition, at(20)), (Applied::AlreadyApplied, None), "{name} again");
        assert_eq!(job, settled, "{name}: a repetition changes nothing");
    }
}

#[test]
fn what_each_move_does_to_a_scheduled_job() {
    use {Cause as C, State as S};
    check(
        scheduled,
        &[
            ("started", Some((S::Running, C::Started, 1, 0))),
            ("handed", Some((S::Running, C::Started, 1, 0))),
            ("succeeded", Some((S::Succeeded, C::Succeeded, 1, 0))),
            ("failed", Some((S::Failed, C::Failed, 1, 0))),
            ("ended cancelled", Some((S::Cancelled, C::Cancelled, 1, 0))),
            ("retried", Some((S::Pending, C::Retried, 1, 0))),
            ("snoozed", Some((S::Pending, C::Snoozed, 0, 0))),
            ("returned", Some((S::Pending, C::Returned, 0, 0))),
            ("preempted", Some((S::Pending, C::Preempted, 0, 0))),
            ("lost", Some((S::Pending, C::Lost, 0, 1))),
            ("lost once too often", Some((S::Failed, C::LostTooOften, 0, 1))),
        ],
    );
}

#[test]
fn what_each_move_does_to_a_running_job() {
    use {Cause as C, State as S};
    check(
        running,
        &[
            ("started", None),
            ("handed", None),
            ("succeeded", Some((S::Succeeded, C::Succeeded, 1, 0))),
            ("failed", Some((S::Failed, C::Failed, 1, 0))),
            ("ended cancelled", Some((S::Cancelled, C::Cancelled, 1, 0))),
            ("retried", Some((S::Pending, C::Retried, 1, 0))),
            ("snoozed", Some((S::Pending, C::Snoozed, 0, 0))),
            ("returned", None),
            ("preempted", Some((S::Pending, C::Preempted, 0, 0))),
            ("lost", Some((S::Pending, C::Lost, 0, 1))),
            ("lost once too often", Some((S::Failed, C::LostTooOften, 1, 1))),
        ],
    );
}

/// Whatever would have run again ends instead; a run that had truly ended stays what it was.
#[test]
fn what_each_move_does_to_a_running_job_whose_end_was_asked_for() {
    use {Cause as C, State as S};
    check(
        unwanted,
        &[
            ("started", None),
            ("handed", None),
            ("succeeded", Some((S::Succeeded, C::Succeeded, 1, 0))),
            ("failed", Some((S::Failed, C::Failed, 1, 0))),
            ("ended cancelled", Some((S::Cancelled, C::Cancelled, 1, 0))),
            ("retried", Some((S::Cancelled, C::Cancelled, 1, 0))),
            ("snoozed", Some((S::Cancelled, C::Cancelled, 0, 0))),
            ("returned", None),
            ("preempted", Some((S::Cancelled, C::Cancelled, 0, 0))),
            ("lost", Some((S::Cancelled, C::Cancelled, 1, 0))),
            ("lost once too often", Some((S::Cancelled, C::Cancelled, 1, 0))),
        ],
    );
}

#[test]
fn a_job_that_nobody_holds_takes_no_move() {
    for before in at_rest() {
        for (name, step) in moves() {
            let mut job = before.clone();
            let same = matches!((&step, job.cause), (Move::Started { .. }, cause) if cause != Cause::Submitted)
                || step.cause() == job.cause
                || (job.cause == Cause::Cancelled && !matches!(step, Move::Finished(_) | Move::Returned));
            let expected = if same {
                Applied::AlreadyApplied
            } else {
                Applied::LeaseLost { held: job.epoch, current: job.epoch }
            };
            let transition = Transition { job: job.id, epoch: job.epoch, step };
            assert_eq!(apply(&mut job, &transition, at(10)), (expected, None), "{name} of {:?}", job.state);
            assert_eq!(job, before, "{name}");
        }
    }
}

#[test]
fn another_epoch_changes_nothing_in_any_state() {
    let mut jobs = at_rest();
    jobs.extend([scheduled(), running(), unwanted()]);
    for mut before in jobs {
        before.epoch = Epoch::from_number(5);
        for (name, step) in moves() {
            for held in [4, 6].map(Epoch::from_number) {
                let mut job = before.clone();
                let transition = Transition { job: job.id, epoch: held, step: step.clone() };
                let lost = Applied::LeaseLost { held, current: before.epoch };
                assert_eq!(apply(&mut job, &transition, at(10)), (lost, None), "{name} of {:?}", job.state);
                assert_eq!(job, before, "{name}");
            }
        }
    }
}

#[test]
fn a_cancellation_at_once_fences_off_whoever_holds_the_job() {
    let mut job = scheduled();
    let held = job.epoch;
    let (reply, change) = cancel(&mut job, at(3));
    assert_eq!((reply, job.state, job.epoch), (CancelReply::Cancelled, State::Cancelled, held.next()));
    assert_eq!(change.map(|change| (change.cause, change.epoch)), Some((Cause::Cancelled, held.next())));
    for (name, step) in moves() {
        let transition = Transition { job: job.id, epoch: held, step };
        let lost = Applied::LeaseLost { held, current: held.next() };
        assert_eq!(apply(&mut job, &transition, at(4)), (lost, None), "{name}");
    }
}

#[test]
fn cancelling_answers_by_the_state() {
    for (job, reply, state) in [
        (at_rest().swap_remove(0), CancelReply::Cancelled, State::Cancelled),
        (pending(), CancelReply::Cancelled, State::Cancelled),
        (scheduled(), CancelReply::Cancelled, State::Cancelled),
        (running(), CancelReply::Requested, State::Running),
        (unwanted(), CancelReply::Requested, State::Running),
        (ended(Outcome::Succeeded), CancelReply::AlreadyTerminal, State::Succeeded),
        (ended(Outcome::Failed(failure())), CancelReply::AlreadyTerminal, State::Failed),
        (ended(Outcome::Cancelled), CancelReply::AlreadyTerminal, State::Cancelled),
    ] {
        let (version, epoch, mut job) = (job.version, job.epoch, job);
        let (got, change) = cancel(&mut job, at(5));
        assert_eq!((got, job.state), (reply, state));
        let at_once = u32::from(reply == CancelReply::Cancelled);
        assert_eq!((job.version - version, change.is_some()), (at_once, at_once == 1), "{reply:?}");
        assert_eq!(job.epoch.number() - epoch.number(), u64::from(at_once), "{reply:?}");
        assert_eq!(job.outcome().is_some(), state.is_terminal());
    }
}

#[test]
fn a_started_job_goes_to_the_lease_that_is_named() {
    let mut job = scheduled();
    step(&mut job, Move::Started { lease: Some(lease("session")) }, at(2));
    assert_eq!((job.lease, job.started_at), (Some(lease("session")), Some(at(2))));
    let mut job = scheduled();
    step(&mut job, Move::Started { lease: None }, at(2));
    assert_eq!(job.lease, Some(lease("node")));
}

#[test]
fn what_a_run_left_behind_is_kept_however_it_ended() {
    let kept = |mut job: Job, last: Move| {
        step(&mut job, last, at(3));
        let settled = job.settled.expect("it ended");
        (settled.outcome.clone(), settled.manifest.clone())
    };
    let retried = || Move::Retried { failure: failure(), wait: WAIT, manifest: Some(manifest()) };
    assert_eq!(kept(running(), finish(Outcome::Succeeded)), (Outcome::Succeeded, Some(manifest())));
    assert_eq!(kept(running(), retried()), (Outcome::Failed(failure()), Some(manifest())));
    assert_eq!(kept(unwanted(), retried()), (Outcome::Cancelled, Some(manifest())));
}

#[test]
fn a_job_that_comes_back_waits_as_long_as_it_was_told() {
    for (name, step_back, eligible) in [
        ("retried", Move::Retried { failure: failure(), wait: WAIT, manifest: None }, at(17)),
        ("snoozed", Move::Snoozed { wait: WAIT }, at(17)),
        ("returned", Move::Returned, at(0)),
        ("preempted", Move::Preempted, at(10)),
        ("lost", Move::Lost { lost_max: LOST_MAX }, at(10)),
    ] {
        let mut job = scheduled();
        step(&mut job, step_back, at(10));
        assert_eq!(job.eligible_at, eligible, "{name}");
    }
}

#[test]
fn losses_are_counted_whoever_tells_of_them() {
    let (mut told, mut reaped) = (running(), running());
    let change = step(&mut told, Move::Lost { lost_max: 2 }, at(5));
    assert_eq!(lose(&mut reaped, 2, at(5)), Some(change));
    assert_eq!(told, reaped);
    claim(&mut told, lease("node"), at(6)).expect("it is due");
    step(&mut told, Move::Lost { lost_max: 2 }, at(7));
    assert_eq!((told.state, told.cause, told.lost_count), (State::Failed, Cause::LostTooOften, 2));
    let Some(Outcome::Failed(failure)) = told.outcome() else { panic!("it failed") };
    assert_eq!(
        (failure.class, &*failure.message),
        (FailureClass::LostTooOften, "its owner died 2 times under it")
    );
    assert_eq!(lose(&mut pending(), 2, at(5)), None, "nobody holds it");
}

#[test]
fn only_a_pending_job_that_is_due_is_claimed() {
    let mut job = admit(new_job(&[]).run_at(at(5)), at(0)).0;
    assert_eq!(claim(&mut job, lease("node"), at(4)), None);
    let change = claim(&mut job, lease("node"), at(5)).expect("it is due");
    assert_eq!((change.to, change.epoch.number(), job.attempt), (State::Scheduled, 1, 0));
    assert_eq!(job.lease, Some(lease("node")));
    let others = at_rest().into_iter().filter(|job| job.state != State::Pending);
    for before in others.chain([scheduled(), running()]) {
        let mut job = before.clone();
        assert_eq!(claim(&mut job, lease("node"), at(100)), None, "{:?}", before.state);
        assert_eq!(job, before);
    }
}

#[test]
fn each_claim_has_a_higher_epoch_and_each_move_one_version_more() {
    let mut job = pending();
    for round in 1..=20_u64 {
        claim(&mut job, lease("node"), at(0)).expect("it is due");
        assert_eq!((job.epoch.number(), u64::from(job.version)), (round, 2 * round));
        step(&mut job, Move::Returned, at(0));
    }
    assert_eq!((job.attempt, job.lost_count, job.state), (0, 0, State::Pending));
}

#[test]
fn a_blocked_job_goes_the_way_of_its_parents() {
    use {Cause as C, Requires as R, State as S};
    for (requires, parent, expected) in [
        (R::Success, S::Succeeded, Some((S::Pending, C::ParentsSettled))),
        (R::Success, S::Failed, Some((S::Failed, C::ParentFailed))),
        (R::Success, S::Cancelled, Some((S::Cancelled, C::Skipped))),
        (R::Ended, S::Succeeded, Some((S::Pending, C::ParentsSettled))),
        (R::Ended, S::Failed, Some((S::Pending, C::ParentsSettled))),
        (R::Ended, S::Cancelled, Some((S::Pending, C::ParentsSettled))),
    ] {
        let (mut job, change) = admit(new_job(&[(9, requires)]), at(0));
        assert_eq!((change.from, change.to, job.waits_for), (None, State::Blocked, 1));
        let change = parent_settled(&mut job, requires, parent, at(5));
        assert_eq!(change.map(|change| (change.to, change.cause)), expected, "{requires:?} {parent:?}");
        assert_eq!(job.outcome().is_some(), job.state.is_terminal());
        assert_eq!(parent_settled(&mut job, requires, parent, at(6)), None, "told twice");
    }
}

#[test]
fn a_job_waits_for_its_last_parent_and_for_its_time() {
    let new = new_job(&[(8, Requires::Success), (9, Requires::Ended)]).run_at(at(50));
    let mut job = admit(new, at(0)).0;
    assert_eq!(parent_settled(&mut job, Requires::Success, State::Succeeded, at(5)), None);
    assert_eq!((job.state, job.waits_for, job.version), (State::Blocked, 1, 1));
    assert!(parent_settled(&mut job, Requires::Ended, State::Failed, at(6)).is_some());
    assert_eq!((job.state, job.eligible_at), (State::Pending, at(50)));
    assert_eq!(requirement(&job, id(8)), Some(Requires::Success));
    assert_eq!(requirement(&job, id(7)), None);
}

#[test]
fn only_what_was_not_claimed_in_time_expires() {
    let late = || admit(new_job(&[]).deadline(at(5)), at(0)).0;
    assert_eq!(expire(&mut late(), at(4)), None);
    let mut job = late();
    let change = expire(&mut job, at(5)).expect("its deadline passed");
    assert_eq!((change.to, change.cause), (State::Failed, Cause::DeadlinePassed));
    let mut job = late();
    claim(&mut job, lease("node"), at(4)).expect("it is due");
    assert_eq!(expire(&mut job, at(100)), None, "it was claimed in time");
    assert_eq!(expire(&mut pending(), at(100)), None, "it has no deadline");
}

#[test]
fn a_redrive_gives_back_everything_but_the_history() {
    for before in [ended(Outcome::Failed(failure())), ended(Outcome::Cancelled)] {
        let mut job = before.clone();
        job.deadline = Some(at(4));
        job.lost_count = 1;
        let change = redrive(&mut job, at(9)).expect("it had ended badly");
        assert_eq!(
            (change.to, change.cause, change.version),
            (State::Pending, Cause::Redriven, before.version + 1)
        );
        assert_eq!((job.generation, job.attempt, job.lost_count, job.deadline), (1, 0, 0, None));
        assert_eq!((job.epoch, job.eligible_at), (before.epoch, at(9)));
        let stale = Transition { job: job.id, epoch: job.epoch, step: finish(Outcome::Cancelled) };
        let lost = Applied::LeaseLost { held: job.epoch, current: job.epoch };
        assert_eq!(apply(&mut job, &stale, at(10)), (lost, None), "the run before does not end it again");
    }
    for mut job in [pending(), scheduled(), running(), ended(Outcome::Succeeded)] {
        assert_eq!(redrive(&mut job, at(9)), None, "{:?}", job.state);
    }
}

#[test]
fn a_run_whose_start_was_not_told_began_as_long_ago_as_it_took_but_not_before_its_claim() {
    let claimed_at = Timestamp::from_micros(5_000_000);
    for (ran, began) in [(0, 9_000_000), (1, 8_999_999), (4_000_000, 5_000_000), (60_000_000, 5_000_000)] {
        let (mut job, _) = admit(new_job(&[]), claimed_at);
        claim(&mut job, lease("a"), claimed_at);
        let mut finish = Finish::succeeded(Output::none());
        finish.ran = Duration::from_micros(ran);
        let step = Move::Finished(Box::new(finish));
        let transition = Transition { job: job.id, epoch: job.epoch, step };
        let (applied, _) = apply(&mut job, &transition, Timestamp::from_micros(9_000_000));
        assert_eq!((applied, job.started_at), (Applied::Done, Some(Timestamp::from_micros(began))));
    }
}
