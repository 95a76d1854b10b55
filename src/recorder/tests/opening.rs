//! The registration of a stream, and its update.

use std::time::Duration;

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

/// Counts the withdrawals of a registration that the store has answered.
async fn withdrawals_of_an_answered_one(store: &FaultStore<MemoryStore>, heals_after: Option<Duration>) -> u64 {
    let (sse, _guardian) = hub(store);
    let (opening, opened) = sse.0.recorder.open(open("a")).await;
    assert!(matches!(opened, Ok(Opened::New { .. })));
    drop(opening);
    if let Some(after) = heals_after {
        tokio::time::sleep(after).await;
        store.heal();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    store.calls("withdraw")
}

#[tokio::test(start_paused = true)]
async fn g6_a_registration_is_withdrawn_until_the_store_has_answered() {
    let store = FaultStore::new(MemoryStore::new());
    assert_eq!(withdrawals_of_an_answered_one(&store, None).await, 1);
    assert!(store.inner().active_count().await == Ok(0));
    let store = FaultStore::new(MemoryStore::new());
    store.fail_on("withdraw", Fault::Refuse);
    assert_eq!(withdrawals_of_an_answered_one(&store, Some(Duration::from_millis(90))).await, 2);
    assert!(store.inner().active_count().await == Ok(0));
    let store = FaultStore::new(MemoryStore::new());
    store.fail_on("withdraw", Fault::Refuse);
    assert_eq!(withdrawals_of_an_answered_one(&store, None).await, 1 + 8, "then a sweep finds the stream");
}

/// A request that timed out may arrive after its withdrawal.
#[tokio::test(start_paused = true)]
async fn g6_a_registration_without_an_answer_is_withdrawn_twice() {
    let store = FaultStore::new(MemoryStore::new());
    let (sse, _guardian) = hub(&store);
    store.fail_on("open", Fault::Hang);
    let (opening, opened) = sse.0.recorder.open(open("a")).await;
    assert!(opened.is_err_and(|error| error.is_timeout()));
    assert_eq!(store.calls("open"), 1, "a timeout is not waited for twice");
    drop(opening);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.calls("withdraw"), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(store.calls("withdraw"), 2);
}
