//! A stop reaches the work at once, also while the store is away.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use resilient_sse::{
    Builder, Durability, Ended, Event, MemoryStore, Owner, StreamId, StreamKey, StreamSpec, StreamState,
    test_util::{Fault, FaultStore, TestHub},
};

use crate::support::bodies::{Client, Step, Watch, app, numbers, request, send, then};

const SECOND: Duration = Duration::from_secs(1);

fn id() -> StreamId {
    StreamId::new("a").unwrap()
}

fn key() -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, id())
}

fn hub(batched: bool, setup: impl FnOnce(Builder) -> Builder) -> TestHub {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
    TestHub::on(if batched { store.batched() } else { store }, |builder| setup(builder.anonymous())).unwrap()
}

/// Stops the stream, while the guardian is stepped.
async fn stop(hub: &mut TestHub) -> (Option<Ended>, Duration) {
    let streams = hub.sse.streams();
    let (owner, id) = (Owner::ANONYMOUS, id());
    let mut stopping = Box::pin(streams.stop(&owner, &id));
    let start = tokio::time::Instant::now();
    loop {
        if let Some(stopped) = (&mut stopping).now_or_never() {
            return (stopped.expect("it runs here"), start.elapsed());
        }
        hub.advance(Duration::from_millis(50)).await;
    }
}

fn assert_stopped(ended: Option<&Ended>) {
    let ending = &ended.expect("it is stopped").ending;
    assert_eq!((ending.state, ending.reason.as_deref()), (StreamState::Cancelled, Some("stopped")));
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_this_node_is_stopped_while_the_store_is_away() {
    for batched in [false, true] {
        for (fault, known) in [(Fault::Hang, false), (Fault::Hang, true), (Fault::Refuse, true)] {
            let hooks = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&hooks);
            let mut hub = hub(batched, |builder| {
                builder.on_end(move |_| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    ready(())
                })
            });
            let watch = Watch::default();
            let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, then(numbers(3), Step::Hang));
            let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
            hub.advance(SECOND).await;
            client.drain();
            hub.store.fail(fault);
            for _ in 0..if known { 3 } else { 0 } {
                let other = StreamId::new("other").unwrap();
                assert!(hub.sse.publisher().send(&Owner::ANONYMOUS, &other, Event::new("x")).await.is_err());
            }
            assert_eq!(hub.sse.health().breaker, if known { "open" } else { "closed" });
            let (ended, took) = stop(&mut hub).await;
            assert_stopped(ended.as_ref());
            assert!(took <= if known { Duration::from_millis(50) } else { SECOND * 2 }, "{took:?}");
            hub.step().await;
            assert_eq!(watch.alive(), 0, "the work is stopped at once");
            client.finish(&mut hub).await;
            assert_eq!(client.data(), ["0", "1", "2", r#"{"reason":"stopped"}"#]);
            assert_eq!(client.names().last(), Some(&"cancelled"));
            drop(client);
            hub.advance(SECOND * 10).await;
            assert_eq!(hooks.load(Ordering::SeqCst), 0);
            hub.store.heal();
            hub.advance(SECOND * 5).await;
            let stored = hub.sse.completions().completion(&key()).await.unwrap();
            assert_stopped(stored.as_ref());
            assert_eq!(stored.unwrap().last, ended.unwrap().last);
            assert_eq!((hooks.load(Ordering::SeqCst), hub.sse.health().active), (1, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_publication_is_told_of_a_stop_while_the_store_is_away() {
    let mut hub = hub(true, |builder| builder);
    let job = hub.sse.publisher().open(StreamSpec::new(Owner::ANONYMOUS, id())).await.unwrap();
    hub.advance(SECOND).await;
    hub.store.fail(Fault::Hang);
    assert!(hub.sse.registry().active_count().await.is_err());
    let (ended, _) = stop(&mut hub).await;
    assert_stopped(ended.as_ref());
    hub.step().await;
    assert!(job.stopped().now_or_never().is_some());
    hub.store.heal();
    let late = tokio::spawn(job.complete(Event::new("late")));
    hub.advance(SECOND * 5).await;
    assert_stopped(late.await.unwrap().ok().as_ref());
}

/// Events from before the stop, which a client may have seen, are recorded before the end.
#[tokio::test(start_paused = true)]
async fn g2_what_a_client_saw_before_a_stop_can_be_replayed() {
    for durability in [Durability::Buffered, Durability::BeforeSend] {
        let mut hub = hub(true, |builder| builder.durability(durability));
        let watch = Watch::default();
        let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, then(numbers(30), Step::Hang));
        let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
        // Nothing is sent to the store yet.
        client.drain();
        let (ended, _) = stop(&mut hub).await;
        assert_eq!(ended.expect("stopped").last.seq, 30);
        client.finish(&mut hub).await;
        let mut again = Client::new(send(&app, request("/s/a")).await.into_body());
        again.finish(&mut hub).await;
        let told: Vec<_> = again.names().into_iter().filter(|name| *name == "message").collect();
        assert_eq!((told.len(), again.names().last()), (30, Some(&"cancelled")), "{durability:?}");
        assert_eq!(watch.made(), 1);
    }
}

/// A stop does not replace an end that is on its way.
#[tokio::test(start_paused = true)]
async fn g3_a_stop_after_the_end_is_answered_with_that() {
    let mut hub = hub(true, |builder| builder);
    let job = hub.sse.publisher().open(StreamSpec::new(Owner::ANONYMOUS, id())).await.unwrap();
    hub.store.fail_on("close", Fault::Delay(Duration::from_millis(300)));
    let ending = tokio::spawn(job.complete(Event::new("done")));
    hub.step().await;
    let (ended, _) = stop(&mut hub).await;
    assert_eq!(ended.expect("it has ended").ending.state, StreamState::Completed);
    assert_eq!(ending.await.unwrap().unwrap().ending.state, StreamState::Completed);
}

/// The stream was run anew on another node, and this node does not know that.
#[tokio::test(start_paused = true)]
async fn a_stop_reaches_the_newest_run_wherever_it_is() {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)).batched();
    let mut old = TestHub::on(store.clone(), Builder::anonymous).unwrap();
    let mut new = TestHub::on(FaultStore::new(store.inner().clone()), Builder::anonymous).unwrap();
    let watch = Watch::default();
    let apps = [&old, &new]
        .map(|hub| app(hub.sse.layer().id(StreamId::path("/s/{id}")), &watch, then(numbers(1), Step::Hang)));
    let mut first = Client::new(send(&apps[0], request("/s/a")).await.into_body());
    old.step().await;
    first.drain();
    store.fail(Fault::Hang);
    new.advance(SECOND * 90).await;
    let mut second = Client::new(send(&apps[1], request("/s/a")).await.into_body());
    second.drain();
    assert_eq!((second.data(), watch.alive()), (vec!["0"], 2), "run anew");
    store.heal();
    assert!(old.sse.health().active == 1, "it has not heard of that");
    let (ended, _) = stop(&mut old).await;
    assert_stopped(ended.as_ref());
    new.advance(SECOND).await;
    second.finish(&mut new).await;
    assert_eq!((second.names().last(), watch.alive()), (Some(&"cancelled"), 0));
}
