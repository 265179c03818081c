//! More lanes than a node remembers.

use hodei_core::store::{JobStore, Served};

use crate::env::{database, job, open, sql, submit};

/// A node remembers 65,536.
const LANES: usize = 70_000;

#[tokio::test]
async fn more_lanes_than_are_remembered_are_all_told() {
    let database = database();
    let store = open(&database).await;
    submit(&store, vec![job()]).await;
    let fill = format!(
        "INSERT INTO hodei.lane (tenant, queue, class, request)
             SELECT l.tenant, 'q' || n, l.class, l.request FROM hodei.lane l, generate_series(2, {LANES}) n;
         INSERT INTO hodei.ready (id, eligible_at, lane, rank)
             SELECT gen_random_uuid(), 0, l.no, 31 FROM hodei.lane l WHERE l.queue <> 'default';
         ANALYZE hodei.lane, hodei.ready;"
    );
    sql(&database, &fill);
    for _ in 0..2 {
        assert_eq!(store.lanes(&Served::default()).await.expect("lanes").heads.len(), LANES);
    }
    // One that was forgotten meanwhile is read again.
    submit(&store, vec![job()]).await;
}
