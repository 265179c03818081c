//! Submissions that somebody else is in the way of.

use hodei_core::store::{Consistency, JobStore, Scope, SubmitOptions, Submitted};

use crate::env::{database, job, open, sql, submit};

#[tokio::test]
async fn nothing_is_new_that_was_not_stored() {
    let database = database();
    let store = open(&database).await;
    let holder = submit(&store, vec![job().unique("k")]).await[0];
    // Once, between the moment in which the key is taken and the one in which its holder is looked up.
    let prune = format!(
        "CREATE SEQUENCE once;
         CREATE FUNCTION prune() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('once') = 1 THEN
                 DELETE FROM hodei.unique_key WHERE id = '{holder}';
                 DELETE FROM hodei.job WHERE id = '{holder}';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER prune BEFORE INSERT ON hodei.delta FOR EACH ROW EXECUTE FUNCTION prune();"
    );
    sql(&database, &prune);
    let jobs = vec![job().unique("k"), job()];
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let done = store.submit(jobs, SubmitOptions::each()).await.expect("submit");
    assert!(matches!(done.replies[0], Submitted::Existing(id) | Submitted::Conflict(id) if id == holder));
    assert_eq!(done.replies[1], Submitted::New(ids[1]));
    let read = store.get_many(&Scope::All, ids, Consistency::Latest).await.expect("get");
    assert!(read[0].is_none() && read[1].is_some());
    assert_eq!(sql(&database, "SELECT last_value FROM once"), "2", "it was done again");
}
