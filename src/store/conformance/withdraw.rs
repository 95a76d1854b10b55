//! Checks of withdrawing a registration whose producer never started.

use super::bench::{Bench, append, epoch_of};
use crate::{
    model::{
        id::{EventId, StreamKey},
        stream::{Origin, StreamState},
    },
    store::{Append, Appended, Fence, Opened, Store},
};

/// A withdrawn new stream is gone, also from its owner's list, and the next request may open it.
pub async fn a_withdrawn_new_stream_is_gone(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("gone");
    let (key, token) = (request.key.clone(), request.token);
    let epoch = epoch_of(&bench.ask(request).await);
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    bench.withdraw(key.clone(), token).await.expect("a repeat is no error");
    assert_eq!(bench.known(&key).await, None);
    assert_eq!(bench.listed().await, []);
    assert_eq!(bench.active_count().await.expect("the store answers"), 0);
    assert_eq!(bench.put(append(&key, epoch, 1, &["late"])).await, Appended::Gone);
    let opened = bench.ask(bench.request("gone")).await;
    assert_eq!(opened, Opened::New { epoch: epoch_of(&opened), previous: None, inner_id: None, origin: Origin::Named });
}

/// Withdrawing a second run leaves the stream interrupted, with the log of the first run.
pub async fn a_withdrawn_second_run_leaves_the_stream_interrupted(store: impl Store) {
    let bench = Bench::new(store);
    let (key, first) = bench.begin("before").await;
    bench.write(&key, first, 1, &["a"]).await;
    bench.stand_still(&key, first).await;
    let request = bench.request("before");
    let token = request.token;
    let second = epoch_of(&bench.ask(request).await);
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    assert_eq!(bench.info_of(&key).await.state, StreamState::Interrupted);
    let opened = bench.ask(bench.request("before")).await;
    let third = epoch_of(&opened);
    let Opened::New { previous: Some(previous), .. } = opened else { panic!("{opened:?}") };
    assert!(third > second);
    assert!(previous == EventId::new(first, 1) || previous == EventId::new(second, 0), "{previous}");
    bench.write(&key, third, 1, &["b"]).await;
    let held: Vec<_> = bench.held(&key).await.into_iter().filter(|entry| entry != "r").collect();
    assert_eq!(held, ["a", "b"]);
}

/// A run whose producer has begun to answer is not withdrawn.
pub async fn a_started_run_is_not_withdrawn(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("started");
    let (key, token) = (request.key.clone(), request.token);
    let epoch = epoch_of(&bench.ask(request).await);
    bench.start(&key, epoch).await;
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    bench.write(&key, epoch, 1, &["a"]).await;
    let request = bench.request("event");
    let (key, token) = (request.key.clone(), request.token);
    let epoch = epoch_of(&bench.ask(request).await);
    bench.write(&key, epoch, 1, &["a"]).await;
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    assert_eq!(bench.info_of(&key).await.state, StreamState::Active, "an event is a beginning too");
    let started = crate::store::Open { started: true, ..bench.request("at-once") };
    let (key, token) = (started.key.clone(), started.token);
    bench.ask(started).await;
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    assert_eq!(bench.info_of(&key).await.state, StreamState::Active);
}

/// A withdrawal with another request's token changes nothing.
pub async fn only_the_own_request_is_withdrawn(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("own").await;
    bench.withdraw(key.clone(), 12345).await.expect("the store answers");
    let info = bench.info_of(&key).await;
    assert_eq!((info.state, info.epoch), (StreamState::Active, epoch));
    bench.withdraw(bench.key("none"), 12345).await.expect("nothing to do is no error");
}

/// A run is withdrawn even if its producer has stored metadata or an inner id: the handler may still fail before it
/// answers. An append that was queued meanwhile does not restore the run.
pub async fn a_run_that_only_kept_something_is_withdrawn(store: impl Store) {
    let bench = Bench::new(store);
    let kept = |key: &StreamKey, epoch| {
        let metadata = vec![("job".to_owned(), "7".to_owned())];
        Append { metadata, inner_id: Some("row-7".to_owned()), ..append(key, epoch, 1, &[]) }
    };
    let request = bench.request("first");
    let (key, token) = (request.key.clone(), request.token);
    let epoch = epoch_of(&bench.ask(request).await);
    assert_eq!(bench.put(kept(&key, epoch)).await, Appended::Stored);
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    assert_eq!(bench.known(&key).await, None);
    assert_eq!(bench.put(kept(&key, epoch)).await, Appended::Gone, "one that was queued");
    assert_eq!(bench.known(&key).await, None);
    let opened = bench.ask(bench.request("first")).await;
    assert_eq!(opened, Opened::New { epoch: epoch_of(&opened), previous: None, inner_id: None, origin: Origin::Named });

    let (key, first) = bench.begin("second").await;
    bench.write(&key, first, 1, &["a"]).await;
    bench.stand_still(&key, first).await;
    let request = bench.request("second");
    let token = request.token;
    let second = epoch_of(&bench.ask(request).await);
    assert_eq!(bench.put(kept(&key, second)).await, Appended::Stored);
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    assert_eq!(bench.info_of(&key).await.state, StreamState::Interrupted);
    assert_eq!(bench.put(kept(&key, second)).await, Appended::Fenced(Fence::Newer), "one that was queued");
}
