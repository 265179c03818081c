//! What holds of a store that keeps no history: all of the suite that does not look for a job after its end.

use std::sync::Arc;

use hodei_core::testkit::conformance::{PROPERTIES, hold};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Databases;

/// What looks for ended jobs, or for what is kept of them.
const OF_THE_ENDED: &[&str] = &[];

/// How many properties are held at once.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn without_history_all_holds_that_is_not_of_the_ended() {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut holding = JoinSet::new();
    for property in PROPERTIES.iter().filter(|property| !OF_THE_ENDED.contains(&property.name)) {
        let room = Arc::clone(&room);
        holding.spawn(async move {
            let _room = room.acquire_owned().await.expect("it is never closed");
            let mut fixture = Databases::new();
            fixture.history = false;
            let held = tokio::spawn(hold(fixture, property.name)).await;
            held.err().map(|_| property.name)
        });
    }
    let mut broken: Vec<&str> = holding.join_all().await.into_iter().flatten().collect();
    broken.sort_unstable();
    assert_eq!(broken, Vec::<&str>::new());
}
