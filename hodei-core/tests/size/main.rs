//! What a job costs in memory, by counting the bytes asked of the allocator.

mod sys;

use std::sync::Arc;

use hodei_core::Timestamp;
use hodei_core::job::{Job, NewJob, rules};
use hodei_core::testkit::{typical_job, typical_spec};

use sys::count;

const JOBS: usize = 1_000;
const MIB: isize = 1 << 20;

fn records(jobs: Vec<NewJob>) -> Vec<Job> {
    jobs.into_iter().map(|job| rules::admit(job, Timestamp::EPOCH).0).collect()
}

/// One test, so that no other allocates meanwhile.
#[test]
fn a_job_costs_little_and_its_clone_nothing() {
    let _warm = records(vec![typical_job()]);
    let (own, bytes) = count(|| records((0..JOBS).map(|_| typical_job()).collect()));
    println!("{JOBS} jobs, each with its own spec: {bytes} bytes");
    assert!(bytes <= MIB * 4 / 5, "{bytes} bytes");
    drop(own);

    let spec = Arc::new(typical_spec().build().unwrap());
    let (shared, bytes) = count(|| records((0..JOBS).map(|_| NewJob::new(Arc::clone(&spec))).collect()));
    println!("{JOBS} jobs that share a spec: {bytes} bytes");
    assert!(bytes <= MIB / 4, "{bytes} bytes");

    let (clone, bytes) = count(|| shared[0].clone());
    assert_eq!((bytes, clone.id), (0, shared[0].id));
}
