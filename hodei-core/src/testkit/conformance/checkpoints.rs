//! What every store of checkpoints must do.

use bytes::Bytes;

use crate::checkpoint::{CHECKPOINT_MAX, CheckpointStore};
use crate::error::ErrorKind;
use crate::id::{JobId, Tenant};
use crate::job::Epoch;
use crate::time::SystemClock;

/// Holds a store of checkpoints to its port.
///
/// # Panics
///
/// When it does not do what the port says.
///
/// # Cancel safety
///
/// Cancel safe: what was saved for some jobs that nobody knows may be left behind.
pub async fn hold_checkpoints(store: &dyn CheckpointStore) {
    let tenant = Tenant::default();
    let mint = || JobId::mint(&tenant, &SystemClock);
    let (job, epoch) = (mint(), Epoch::from_number);
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let opened = async |job, number| store.open(&tenant, job, epoch(number)).await;
    let saved = async |job, number, bytes| store.save(&tenant, job, epoch(number), bytes).await;
    assert_eq!(opened(job, 1).await.expect("open"), None);
    saved(job, 1, bytes("half")).await.expect("save");
    saved(job, 1, bytes("most")).await.expect("save");
    let other = Tenant::new("other").expect("a name");
    assert_eq!(store.open(&other, job, epoch(1)).await.expect("open"), None, "another tenant's");
    assert_eq!(opened(job, 3).await.expect("open"), Some(bytes("most")));
    for stale in [1, 2] {
        assert_eq!(saved(job, stale, bytes("stale")).await.expect_err("stale").kind(), ErrorKind::LeaseLost);
        assert_eq!(opened(job, stale).await.expect_err("stale").kind(), ErrorKind::LeaseLost);
    }
    assert_eq!(opened(job, 3).await.expect("open"), Some(bytes("most")), "nothing was written over");
    // Who saves without opening raises the fence too.
    let unopened = mint();
    saved(unopened, 5, bytes("late")).await.expect("save");
    assert_eq!(opened(unopened, 4).await.expect_err("stale").kind(), ErrorKind::LeaseLost);
    assert_eq!(opened(unopened, 5).await.expect("open"), Some(bytes("late")));
    let large = Bytes::from(vec![7; CHECKPOINT_MAX]);
    saved(job, 3, large.clone()).await.expect("save");
    let larger = Bytes::from(vec![7; CHECKPOINT_MAX + 1]);
    assert_eq!(saved(job, 3, larger).await.expect_err("too large").kind(), ErrorKind::LimitExceeded);
    assert_eq!(opened(job, 4).await.expect("open"), Some(large));
    saved(job, 4, Bytes::new()).await.expect("save");
    assert_eq!(opened(job, 5).await.expect("open"), Some(Bytes::new()), "empty is not nothing");
    store.forget(vec![(tenant.clone(), job), (tenant.clone(), mint())]).await.expect("forget");
    assert_eq!(opened(job, 6).await.expect("open"), None);
    assert_eq!(opened(unopened, 5).await.expect("open"), Some(bytes("late")), "no other went with it");
    store
        .forget(vec![(tenant.clone(), job), (tenant.clone(), unopened), (other, job)])
        .await
        .expect("forget");
}
