use std::sync::Arc;
use std::time::Duration;

use super::{Held, Unique};
use bytes::Bytes;

use crate::id::{JobId, Name, OwnerId, Tenant};
use crate::job::{Encoding, Job, JobSpec, JobSpecBuilder, Lease, NewJob, Payload, State, rules};
use crate::store::Change;
use crate::time::Timestamp;

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_MICROS: i64 = 3_600_000_000;

fn command(args: &[&str]) -> NewJob {
    NewJob::new(JobSpec::command(args.iter().copied()).build().expect("a valid spec"))
}

fn key(job: NewJob, by: impl Into<Unique>) -> Arc<str> {
    job.unique(by).unique.expect("a key")
}

fn minted(at: i64) -> NewJob {
    let ticket = u64::try_from(at / 1_000).expect("after 1970") << 12;
    let job = command(&["a", "b"]);
    let id = JobId::from_parts(ticket, job.tenant.slot(), 7);
    job.id(id)
}

#[test]
fn a_name_alone_is_the_key() {
    assert_eq!(&*key(command(&["a"]), "k"), "k");
    assert_eq!(&*key(command(&["a"]), String::from("k")), "k");
    assert_eq!(&*key(command(&["a"]), Unique::key("k").while_open()), "open:k");
    assert_eq!(&*key(command(&["a"]), Unique::key("k").unless_failed()), "unfailed:k");
    assert_eq!(&*key(command(&["a"]), Unique::key("k").while_open().while_waiting()), "waiting:k");
    assert_eq!(key(command(&["a"]), "open:k"), key(command(&["b"]), Unique::key("k").while_open()));
}

/// Other programs make the same keys: what is hashed does not change.
#[test]
fn the_hash_stays_as_it_is() {
    let all = Unique::key("k").by_args().by_queue().per(HOUR).at(Timestamp::from_micros(0)).while_open();
    assert_eq!(&*key(command(&["a", "b"]), Unique::new()), "#158cbaa6481e13dce439c73e2dc0930e");
    assert_eq!(&*key(command(&["a", "b"]), all), "open:k#6113ce49ab7b7107cdbd7028de8ac187");
}

#[test]
fn only_what_is_asked_for_tells_jobs_apart() {
    let (one, two, other) = (|| command(&["a", "b"]), || command(&["a", "c"]), || command(&["b", "b"]));
    for (by, apart_by_args) in [(Unique::new(), false), (Unique::new().by_args(), true)] {
        assert_eq!(key(one(), by.clone()), key(one(), by.clone()));
        assert_eq!(key(one(), by.clone()) != key(two(), by.clone()), apart_by_args);
        assert_ne!(key(one(), by.clone()), key(other(), by));
    }
    let queued = |queue: &str| {
        let spec = JobSpec::command(["a"]).queue(queue).build().expect("a valid spec");
        NewJob::new(spec)
    };
    assert_eq!(key(queued("x"), Unique::new()), key(queued("y"), Unique::new()));
    assert_ne!(key(queued("x"), Unique::new().by_queue()), key(queued("y"), Unique::new().by_queue()));
    assert_ne!(key(one(), Unique::key("k").by_kind()), key(one(), Unique::key("l").by_kind()));
}

#[test]
fn a_handler_is_known_by_its_kind_and_arguments() {
    let handler = |kind: &str, args: &'static [u8]| {
        let payload = Payload::Handler {
            kind: Name::new(kind).expect("a name"),
            version: 1,
            encoding: Encoding::Json,
            args: Bytes::from_static(args),
        };
        NewJob::new(JobSpecBuilder::handler(payload).name("n").build().expect("a valid spec"))
    };
    assert_eq!(key(handler("mail", b"1"), Unique::new()), key(handler("mail", b"2"), Unique::new()));
    assert_ne!(key(handler("mail", b"1"), Unique::new()), key(handler("post", b"1"), Unique::new()));
    let by_args = || Unique::new().by_args();
    assert_ne!(key(handler("mail", b"1"), by_args()), key(handler("mail", b"2"), by_args()));
}

#[test]
fn periods_follow_one_another_from_1970_on() {
    let hourly = || Unique::new().per(HOUR);
    let first = key(minted(0), hourly());
    assert_eq!(key(minted(HOUR_MICROS - 1_000), hourly()), first);
    assert_ne!(key(minted(HOUR_MICROS), hourly()), first);
    let at = |micros| key(minted(0), hourly().at(Timestamp::from_micros(micros)));
    assert_eq!(at(HOUR_MICROS - 1), first);
    assert_ne!(at(HOUR_MICROS), first);
    assert_ne!(at(-1), first, "what is before 1970 is no period of after");
    assert_ne!(key(minted(0), Unique::new().per(2 * HOUR)), first);
    assert_eq!(
        key(minted(0), Unique::new().per(Duration::ZERO)),
        key(minted(0), Unique::new().per(Duration::ZERO))
    );
}

#[test]
fn what_a_key_begins_with_says_when_it_is_held() {
    let all = [("k", Held::UntilPruned), ("open:k", Held::WhileOpen), ("unfailed:k", Held::UnlessFailed)];
    for (text, held) in
        all.into_iter().chain([("waiting:k", Held::WhileWaiting), ("opened:k", Held::UntilPruned)])
    {
        assert_eq!(Held::of(text), held, "{text}");
        assert_eq!(held.is_taken_again(), matches!(held, Held::WhileOpen | Held::UnlessFailed));
    }
    assert!(
        ["open:", "unfailed:", "waiting:"]
            .map(|begin| command(&["a"]).unique(begin).check().is_err())
            .iter()
            .all(|e| *e)
    );
}

/// A job's way through every state, and where it holds which keys.
#[test]
fn a_job_holds_its_key_in_the_states_of_its_set() {
    let now = Timestamp::from_micros(1);
    let lease = || Lease { owner: OwnerId::new("w").expect("a name"), incarnation: 1 };
    for (begin, held) in
        [("", "yyyyyyy"), ("open:", "yyyyyny"), ("unfailed:", "yyyyyny"), ("waiting:", "ynnnnnn")]
    {
        let new = NewJob::of(Tenant::default(), command(&["a"]).spec).unique(format!("{begin}k"));
        let (mut job, _) = rules::admit(new, now);
        let mut seen = vec![job.held_key().is_some()];
        let mut step = |job: &mut Job, made: Option<Change>| {
            made.expect("a legal move");
            seen.push(job.held_key().is_some());
        };
        let made = rules::claim(&mut job, lease(), now);
        step(&mut job, made);
        let made = rules::lose(&mut job, 9, now);
        step(&mut job, made);
        let made = rules::claim(&mut job, lease(), now);
        step(&mut job, made);
        let made = rules::lose(&mut job, 9, now);
        step(&mut job, made);
        let made = rules::cancel(&mut job, now).1;
        step(&mut job, made);
        let made = rules::redrive(&mut job, now);
        step(&mut job, made);
        let seen: String = seen.into_iter().map(|held| if held { 'y' } else { 'n' }).collect();
        assert_eq!(seen, held, "{begin}");
    }
}

#[test]
fn a_key_while_open_is_free_with_the_end() {
    let now = Timestamp::from_micros(1);
    for (by, kept) in [(Unique::key("k"), true), (Unique::key("k").while_open(), false)] {
        let new = NewJob::of(Tenant::default(), command(&["a"]).spec).unique(by);
        let (mut job, _) = rules::admit(new, now);
        assert_eq!(job.held_key(), job.unique.as_ref());
        rules::cancel(&mut job, now);
        assert_eq!((job.state, job.held_key().is_some()), (State::Cancelled, kept));
        rules::redrive(&mut job, now);
        assert_eq!(job.held_key(), job.unique.as_ref());
    }
}
