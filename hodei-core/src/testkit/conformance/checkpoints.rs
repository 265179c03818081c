//! What keeps checkpoints, whatever it is.

use bytes::Bytes;

use crate::checkpoint::{CHECKPOINT_MAX, CheckpointStore};
use crate::error::ErrorKind;
use crate::id::{JobId, Tenant};
use crate::job::Epoch;
use crate::time::SystemClock;

/// Holds an empty store of checkpoints to its port: fences, sizes, tenants, and that what is forgotten is gone.
///
/// # Panics
///
/// When the store breaks a promise, with the promise.
///
/// # Cancel safety
///
/// A dropped call leaves in the store what it has written there.
pub async fn hold_checkpoints(store: &dyn CheckpointStore) {
    let epoch = Epoch::from_number;
    let tenant = Tenant::default();
    let mint = || JobId::mint(&Tenant::default(), &SystemClock);
    let (job, neighbour) = (mint(), mint());
    let open = async |tenant: &Tenant, job, number| {
        let opened = store.open(tenant, job, epoch(number)).await;
        opened.map_err(|error| error.kind())
    };
    let save = async |job, number, bytes: Bytes| {
        let saved = store.save(&tenant, job, epoch(number), bytes).await;
        saved.map_err(|error| error.kind())
    };
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let lost = Err(ErrorKind::LeaseLost);
    assert_eq!(open(&tenant, job, 1).await, Ok(None), "nothing was saved yet");
    assert_eq!(save(job, 1, text("half")).await, Ok(()));
    assert_eq!(save(job, 1, text("most")).await, Ok(()), "the last one counts");
    let other = Tenant::new("other").expect("a name");
    assert_eq!(open(&other, job, 1).await, Ok(None), "another tenant sees nothing");
    assert_eq!(open(&tenant, neighbour, 1).await, Ok(None), "nor does another job");
    assert_eq!(open(&tenant, job, 1).await, Ok(Some(text("most"))), "a run may open it again");
    assert_eq!(open(&tenant, job, 3).await, Ok(Some(text("most"))));
    for stale in [1, 2] {
        assert_eq!(save(job, stale, text("stale")).await, lost, "an earlier run is shut out");
        assert_eq!(open(&tenant, job, stale).await, Err(ErrorKind::LeaseLost));
    }
    assert_eq!(open(&tenant, job, 3).await, Ok(Some(text("most"))), "nothing was written over");
    assert_eq!(save(job, 5, text("later")).await, Ok(()), "whoever saves raises the fence as well");
    assert_eq!(save(job, 4, text("stale")).await, lost);
    let large = Bytes::from(vec![7; CHECKPOINT_MAX]);
    assert_eq!(save(job, 5, large.clone()).await, Ok(()));
    let larger = Bytes::from(vec![7; CHECKPOINT_MAX + 1]);
    assert_eq!(save(job, 5, larger).await, Err(ErrorKind::LimitExceeded));
    assert_eq!(open(&tenant, job, 6).await, Ok(Some(large)), "what is refused changes nothing");
    assert_eq!(save(job, 6, Bytes::new()).await, Ok(()));
    assert_eq!(open(&tenant, job, 7).await, Ok(Some(Bytes::new())), "empty is not nothing");
    let gone = vec![(tenant.clone(), job), (tenant.clone(), mint())];
    store.forget(gone.clone()).await.expect("what is not there is forgotten already");
    store.forget(gone).await.expect("forgetting can be repeated");
    assert_eq!(open(&tenant, job, 1).await, Ok(None), "neither bytes nor fence are left");
    assert_eq!(open(&other, job, 1).await, Ok(None));
}
