//! Point reads, outputs, counts, and what a store counts of itself.

use super::env::Env;
use super::jobs::*;
use crate::job::{BlobRef, Output, State};
use crate::store::{Consistency, Counts, Scope, StoreStats};

pub(super) async fn jobs_are_read_in_the_order_asked_for(env: &mut Env) {
    let all = env.add_all(vec![job(), job()]).await;
    let foreign_job = env.add(job_for(&acme(), spec())).await;
    let asked = vec![all[1], nobody(), all[0], foreign_job, all[1]];
    let read = env.store().get_many(&own(), asked.clone(), Consistency::Latest).await.expect("get");
    let found: Vec<_> = read.iter().map(|job| job.as_ref().map(|job| job.id)).collect();
    assert_eq!(found, [Some(all[1]), None, Some(all[0]), None, Some(all[1])]);
    let cached = env.store().get_many(&own(), asked, Consistency::Cached(SECOND)).await.expect("get");
    assert_eq!(cached, read, "nothing has changed since");
    assert_eq!(env.store().get_many(&own(), vec![], Consistency::Latest).await.expect("get"), []);
}

pub(super) async fn only_jobs_that_succeeded_have_outputs(env: &mut Env) {
    let (good, bad, open) = (env.add(job()).await, env.add(job()).await, env.add(job()).await);
    env.run(good, succeeded_with(output("42"))).await;
    env.run(bad, failed()).await;
    let foreign_job = env.add(job_for(&acme(), spec())).await;
    env.run(foreign_job, succeeded()).await;
    let asked = vec![bad, good, nobody(), open, foreign_job, good];
    let read = env.store().outputs(&own(), asked).await.expect("outputs");
    assert_eq!(read, [None, Some(output("42")), None, None, None, Some(output("42"))]);
}

pub(super) async fn outputs_come_back_as_they_were(env: &mut Env) {
    let blob = BlobRef { key: "blobs/1".into(), len: 1 << 40, digest: [7; 32] };
    let large = Output::Inline(vec![0xa5; crate::job::OUTPUT_INLINE_MAX].into());
    for given in [Output::none(), Output::Blob(blob), large] {
        let id = env.add(job()).await;
        env.run(id, succeeded_with(given.clone())).await;
        assert_eq!(env.store().outputs(&own(), vec![id]).await.expect("outputs"), [Some(given)]);
    }
}

pub(super) async fn counts_follow_every_move(env: &mut Env) {
    let expect = async |env: &Env, expected: [u64; 7]| {
        let counts = env.store().counts(&own()).await.expect("counts");
        assert_eq!(counts, Counts::from_numbers(expected));
        assert_eq!(env.store().counts(&Scope::All).await.expect("counts"), counts);
        assert_eq!(env.store().counts(&foreign()).await.expect("counts").total(), 0);
    };
    expect(env, [0; 7]).await;
    let parent = env.add(job()).await;
    env.add(job().after(needs(&[parent]))).await;
    expect(env, [1, 1, 0, 0, 0, 0, 0]).await;
    let held = env.hold(parent).await;
    expect(env, [1, 0, 1, 0, 0, 0, 0]).await;
    env.tell(&held, started()).await;
    expect(env, [1, 0, 0, 1, 0, 0, 0]).await;
    env.tell(&held, failed()).await;
    expect(env, [0, 0, 0, 0, 0, 2, 0]).await;
    env.redrive(&[parent]).await;
    expect(env, [0, 1, 0, 0, 0, 1, 0]).await;
    env.cancel(&[parent]).await;
    expect(env, [0, 0, 0, 0, 0, 1, 1]).await;
    env.redrive(&[parent]).await;
    env.run(parent, succeeded()).await;
    expect(env, [0, 0, 0, 0, 1, 1, 0]).await;
    assert_eq!(env.state(parent).await, State::Succeeded);
}

fn grown(before: StoreStats, after: StoreStats) -> bool {
    after.commits >= before.commits
        && after.syncs >= before.syncs
        && after.rows_written >= before.rows_written
        && after.rows_read >= before.rows_read
        && after.bytes_written >= before.bytes_written
        && before.cache.is_none_or(|before| {
            after.cache.is_some_and(|after| after.hits >= before.hits && after.misses >= before.misses)
        })
}

pub(super) async fn what_a_store_has_done_only_grows(env: &mut Env) {
    let mut last = env.store().stats();
    for _ in 0..3 {
        let id = env.add(job()).await;
        let written = env.store().stats();
        assert!(grown(last, written) && written.commits > last.commits, "{last:?} {written:?}");
        assert!(written.rows_written > last.rows_written, "{last:?} {written:?}");
        if env.store().capabilities().durable {
            assert!(written.syncs > last.syncs, "what is acknowledged is synced: {last:?} {written:?}");
        }
        env.get(id).await;
        env.lanes().await;
        let read = env.store().stats();
        assert!(grown(written, read), "{written:?} {read:?}");
        env.run(id, succeeded()).await;
        last = env.store().stats();
        assert!(grown(read, last), "{read:?} {last:?}");
    }
}
