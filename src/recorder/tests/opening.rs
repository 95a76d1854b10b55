//! The registration of a stream, and its update.

use super::{hub, lane, open};
use crate::{
    MemoryStore,
    model::stream::StreamState,
    recorder::{EndRequest, Lane},
    store::{Interrupt, Opened, Store as _},
    test_util::{Fault, FaultStore},
};

/// Another node interrupted the stream, so the update begins a new run, which nobody produces.
#[tokio::test(start_paused = true)]
async fn g4_an_update_of_a_registration_leaves_no_new_run_behind() {
    let store = FaultStore::new(MemoryStore::new());
    let (sse, _guardian) = hub(&store);
    let opened = store.open(open("a")).await.expect("opened");
    let Opened::New { epoch, .. } = opened else { panic!("{opened:?}") };
    let lane = lane("a", epoch, 8, 1 << 20);
    let state = async || store.info(lane.key.clone()).await.expect("answered").expect("held").state;
    sse.0.recorder.update_registration(&lane).await;
    assert_eq!(state().await, StreamState::Active);
    let interrupt = Interrupt { key: lane.key.clone(), epoch, last: None, if_deadline: None };
    store.interrupt(interrupt).await.expect("interrupted");
    sse.0.recorder.update_registration(&lane).await;
    assert_eq!(state().await, StreamState::Interrupted);
}

/// By then the stream may have been interrupted, and the update would begin a new run.
#[tokio::test(start_paused = true)]
async fn g4_a_registration_is_not_updated_once_an_end_is_requested_or_stored() {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let (sse, _guardian) = hub(&store);
    let recorder = &sse.0.recorder;
    store.fail_on("open", Fault::Refuse);
    let updates = async |lane: &Lane| {
        let before = store.calls("open");
        recorder.update_registration(lane).await;
        store.calls("open") - before
    };
    let ending = lane("b", 1, 8, 1 << 20);
    ending.end(recorder, EndRequest::Interrupt);
    assert_eq!(updates(&ending).await, 0);
    let ended = lane("c", 1, 8, 1 << 20);
    recorder.abandon(&ended);
    assert_eq!(updates(&ended).await, 0);
    assert!(updates(&lane("a", 1, 8, 1 << 20)).await > 1, "otherwise it is tried again");
}
