//! The ends that a store lost.

use std::time::Duration;

use super::{hub, lane};
use crate::{
    MemoryStore,
    hooks::recent::RecentClose,
    model::stream::{Ending, StreamState, reason},
    recorder::Lane,
    store::{Close, Reopen},
    test_util::FaultStore,
};

/// Creates the end of a lane's run.
fn end_of(lane: &Lane) -> RecentClose {
    let (key, epoch) = (lane.key.clone(), Some(lane.epoch));
    let ending = Ending::supplied(StreamState::Failed, reason::ERROR);
    let reopen = Reopen {
        open: lane.registered(),
        epoch: lane.epoch,
        acknowledged: 0,
        inner_id: None,
        inner_retry: None,
        since: Duration::ZERO,
    };
    RecentClose { close: Close { key, epoch, ending, last: None, if_deadline: None, hook: None }, reopen }
}

#[tokio::test]
async fn an_end_is_obsolete_while_a_newer_run_of_its_stream_runs_here() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()));
    let recorder = &sse.0.recorder;
    recorder.enter(&lane("a", 5, 1, 1));
    let is_obsolete = |id: &str, epoch| recorder.has_newer_run(&end_of(&lane(id, epoch, 1, 1)));
    assert_eq!([4, 5, 6].map(|epoch| is_obsolete("a", epoch)), [true, false, false]);
    assert!(!is_obsolete("b", 4), "another stream");
    let of_any_run = RecentClose {
        close: Close { epoch: None, ..end_of(&lane("a", 4, 1, 1)).close },
        ..end_of(&lane("a", 4, 1, 1))
    };
    assert!(!recorder.has_newer_run(&of_any_run));
}

/// The store has lost the newer run as well. If it got the end of the older run first, followers would see that end.
#[tokio::test(start_paused = true)]
async fn g3_an_obsolete_end_is_not_stored_again() {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let (sse, _guardian) = hub(&store);
    let recorder = &sse.0.recorder;
    let ended = lane("a", 4, 1, 1);
    recorder.hooks.recent.landed(end_of(&ended));
    recorder.enter(&lane("a", 5, 1, 1));
    recorder.store_changed();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((store.calls("close"), store.calls("reopen")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn g3_an_end_that_the_store_lost_is_stored_again() {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let (sse, _guardian) = hub(&store);
    let recorder = &sse.0.recorder;
    let ended = lane("a", 4, 1, 1);
    recorder.hooks.recent.landed(end_of(&ended));
    recorder.store_changed();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((store.calls("close"), store.calls("reopen")), (2, 1), "missing, registered again, closed");
}
