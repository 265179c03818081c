//! What is not written down of a job because its row says it, and nodes of before, who know nothing of that.

use hodei_core::Timestamp;
use hodei_core::job::NewJob;
use hodei_core::store::{Consistency, JobStore, Scope, SubmitOptions, Submitted};
use hodei_store_pg::PgStore;

use crate::env::{claim, database, job, jobs, open, owner, sql, submit};

/// The first bytes of the bodies that are stored: 1 is the layout of before.
const LAYOUTS: &str = "SELECT string_agg(DISTINCT least(get_byte(body, 0), 128)::text, ' ') FROM hodei.job";
/// How many fingerprints, and how many times from which on jobs may run, are written down.
const WRITTEN: &str = "SELECT count(fingerprint) || ' ' || count(eligible_at) FROM hodei.job";

/// Jobs of which some say by themselves what their fingerprints are, and some do not.
fn mixed() -> Vec<NewJob> {
    let at = |secs: i64| Timestamp::from_micros(secs * 1_000_000);
    let untimed = [job(), job().unique("k")];
    let timed = [job().run_at(at(1)), job().run_at(at(9_000_000_000)), job().deadline(at(9_000_000_000))];
    untimed.into_iter().chain(timed).collect()
}

/// Submits jobs, one by one where that is asked for, and reads them back.
async fn stored(store: &PgStore, jobs: &[NewJob], options: SubmitOptions) {
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let expected: Vec<_> = ids.iter().copied().map(Submitted::New).collect();
    let done = store.submit(jobs.to_vec(), options).await.expect("submit");
    assert_eq!(done.replies, expected);
    let read = store.get_many(&Scope::All, ids, Consistency::Latest).await.expect("get");
    for (job, read) in jobs.iter().zip(read) {
        let read = read.expect("it is stored");
        assert_eq!((read.fingerprint, &read.spec, &read.unique), (job.fingerprint(), &job.spec, &job.unique));
        let eligible = job.run_at.map_or(read.created_at, |at| at.max(read.created_at));
        assert_eq!(read.eligible_at, eligible);
    }
}

#[tokio::test]
async fn what_a_row_says_is_not_written_down_and_comes_back() {
    for options in [SubmitOptions::each(), SubmitOptions::atomic()] {
        let database = database();
        let store = open(&database).await;
        stored(&store, &mixed(), options).await;
        assert_eq!(sql(&database, WRITTEN), "3 1", "{options:?}");
        assert_eq!(sql(&database, LAYOUTS), "128");
        let owner = owner(&store, "node").await;
        for claimed in claim(&store, &owner, 9).await {
            let read =
                store.get_many(&Scope::All, vec![claimed.job.id], Consistency::Latest).await.expect("get");
            assert_eq!(Some(&*claimed.job), read[0].as_ref());
        }
    }
}

#[tokio::test]
async fn a_repetition_is_told_from_another_submission_by_what_the_row_says() {
    let database = database();
    let store = open(&database).await;
    let first = jobs(3);
    submit(&store, first.clone()).await;
    let other = NewJob { deadline: Some(Timestamp::from_micros(i64::MAX)), ..first[1].clone() };
    let again = vec![first[0].clone(), other, job(), first[2].clone()];
    let expected = [
        Submitted::Existing(again[0].id),
        Submitted::Conflict(again[1].id),
        Submitted::New(again[2].id),
        Submitted::Existing(again[3].id),
    ];
    let done = store.submit(again, SubmitOptions::each()).await.expect("submit");
    assert_eq!(done.replies, expected);
}

/// The holder goes between the statement that found it and the one that reads what it is.
#[tokio::test]
async fn who_was_in_the_way_and_is_gone_is_in_nobodys_way() {
    let database = database();
    let store = open(&database).await;
    let holder = submit(&store, vec![job().unique("k")]).await[0];
    sql(
        &database,
        &format!(
            "CREATE FUNCTION prune() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 DELETE FROM hodei.unique_key WHERE id = '{holder}';
                 DELETE FROM hodei.ready WHERE id = '{holder}';
                 DELETE FROM hodei.job WHERE id = '{holder}';
                 RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER prune AFTER INSERT ON hodei.delta DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION prune();"
        ),
    );
    let jobs = vec![job().unique("k"), job()];
    let expected: Vec<_> = jobs.iter().map(|job| Submitted::New(job.id)).collect();
    let done = store.submit(jobs, SubmitOptions::each()).await.expect("submit");
    assert_eq!((done.replies, done.changes.len()), (expected, 2));
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.job"), "2");
}

#[tokio::test]
async fn while_a_node_of_before_lives_jobs_are_stored_as_it_reads_them() {
    let database = database();
    open(&database).await.close().await;
    // As such a node does it.
    sql(&database, "SELECT hodei.register('before', 3600000000)");
    let store = open(&database).await;
    stored(&store, &mixed(), SubmitOptions::each()).await;
    stored(&store, &[job()], SubmitOptions::atomic()).await;
    assert_eq!(sql(&database, LAYOUTS), "1");
    assert_eq!(sql(&database, "SELECT count(*) FROM hodei.job WHERE fingerprint IS NULL"), "0");
    owner(&store, "now").await;
    store.close().await;
    sql(&database, "UPDATE hodei.owner SET expires_at = 0 WHERE name = 'before'");
    let store = open(&database).await;
    stored(&store, &[job()], SubmitOptions::each()).await;
    assert_eq!(sql(&database, LAYOUTS), "1 128");
}
