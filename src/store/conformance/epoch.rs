//! Checks of epochs, which order the runs of a stream.

use super::bench::{Bench, SOON, epoch_of};
use crate::store::Store;

/// A run's epoch is `max(previous + 1, now)`, by the store's clock in unix milliseconds.
pub async fn epochs_are_times_and_rise(store: impl Store) {
    let bench = Bench::new(store);
    let mut previous = 0;
    for _ in 0..20 {
        let before = bench.now().await;
        let (key, epoch) = bench.begin("epochs").await;
        let after = bench.now().await;
        assert!(epoch > previous && epoch >= before, "{epoch} after {previous} at {before}");
        assert!(epoch <= after.max(previous + 1), "{epoch} after {previous} at {after}");
        bench.stand_still(&key, epoch).await;
        previous = epoch;
    }
}

/// No epoch is given twice. Otherwise a late append of an old producer could count for a new run, and a cursor at an
/// old end could point into a new run.
pub async fn epochs_rise_across_withdrawal_and_deletion(store: impl Store) {
    let bench = Bench::new(store);
    let mut above = 0;
    for round in 0..30 {
        let request = bench.request("risen");
        let (key, token) = (request.key.clone(), request.token);
        let epoch = epoch_of(&bench.ask(request).await);
        assert!(epoch > above, "{epoch} is not above {above}, in round {round}");
        above = epoch;
        match round % 3 {
            0 => bench.withdraw(key, token).await.expect("the store answers"),
            1 => bench.delete(key).await.expect("the store answers"),
            _ => {
                above = bench.finish(&key, epoch).await.id.epoch;
                bench.delete(key).await.expect("the store answers");
            }
        }
    }
    let epoch = bench.sent(bench.event("risen", "a")).await.epoch;
    assert!(epoch > above, "{epoch} is not above {above}, published");
}

/// A stream that is opened again after it expired has a higher epoch than the terminal event of the expired one.
pub async fn epochs_rise_across_expiry(store: impl Store) {
    let bench = Bench::new(store);
    let mut request = bench.request("expired");
    request.retention.recovery_window = SOON;
    let epoch = epoch_of(&bench.ask(request.clone()).await);
    let ended = bench.finish(&request.key, epoch).await;
    bench.until("an ended stream expires", async || bench.known(&request.key).await.is_none()).await;
    let (_, epoch) = bench.begin("expired").await;
    assert!(epoch > ended.id.epoch);
}
