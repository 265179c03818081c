//! What a report means for the job: the policy of retries.

use hodei_core::gateway::News;
use hodei_core::job::{FailureClass, Finish, Job, Outcome};
use hodei_core::store::Move;

/// Turns the news of a run into the transition to make; so much memory had been set aside for it.
pub(super) fn verdict(job: &Job, memory: u64, news: News) -> Move {
    match news {
        News::Started => Move::Started { lease: None },
        News::Snoozed(wait) => Move::Snoozed { wait },
        News::Returned => Move::Returned,
        News::Ended(finish) => ended(job, memory, finish),
    }
}

/// A failure with attempts left is retried, whatever the agent thinks of it.
fn ended(job: &Job, memory: u64, mut finish: Box<Finish>) -> Move {
    let Outcome::Failed(failure) = &mut finish.outcome else {
        return Move::Finished(finish);
    };
    let ran_out = failure.class == FailureClass::OutOfMemory && memory > 0;
    if ran_out || memory > job.spec.resources().memory {
        // Whoever places the next run reads it there. One that had more than it asks for keeps that, however it ended.
        *failure = failure.clone().having(memory);
    }
    // The claim found the attempts made before; this run was one more.
    let attempt = job.attempt + 1;
    match job.spec.retry().next_wait(attempt, failure.class, jitter_bits(job)) {
        Some(wait) => Move::Retried { failure: failure.clone(), wait, manifest: finish.manifest },
        None => Move::Finished(finish),
    }
}

/// Bits that differ from job to job and from run to run, and are the same when the decision is repeated.
///
/// SplitMix64 (Steele, Lea, Flood 2014) over the random half of the id and the epoch.
fn jitter_bits(job: &Job) -> u64 {
    let bytes = job.id.as_bytes();
    let mut z = job.epoch.number().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in &bytes[8..] {
        z = (z << 8) ^ (z >> 56) ^ u64::from(*byte);
    }
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
