//! Events that are made while earlier ones wait for the store: as many as the window holds, and none is lost for it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use resilient_sse::{
    Durability, Ending, MemoryStore, ResilientSse, Store as _, StreamId, StreamState, reason,
    store::Close,
    test_util::{Fault, FaultStore},
};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use crate::support::rig::{Rig, Script, assert_unharmed, key, millis, watch};

/// The store is slow but within its limit, and the room is small. Nothing may be lost: the body must wait.
#[tokio::test(start_paused = true)]
async fn g1_nothing_is_lost_to_a_slow_store_where_room_is_short() {
    let script = Script { events: 6000, every: Duration::ZERO, padding: 100, ..Script::default() };
    let setup = |hub: resilient_sse::Builder| {
        hub.durability(Durability::BeforeSend).max_event_bytes(4 << 10).recorder_bytes(128 << 10)
    };
    let rig = Rig::with(true, script, setup, |layer| layer);
    rig.store.fail_on("append", Fault::Delay(millis(100)));
    let seen = rig.client().await.await.unwrap();
    assert_unharmed(&seen, script);
    assert_eq!((rig.sse.health().recorded, rig.sse.health().lost), (script.events, 0));
}

/// The same with many streams, each of which has little of the room.
#[tokio::test(start_paused = true)]
async fn g8_many_streams_wait_for_room_and_lose_nothing() {
    let script = Script { events: 1500, every: Duration::ZERO, padding: 1000, ..Script::default() };
    let rig =
        Rig::with(true, script, |hub| hub.durability(Durability::BeforeSend).recorder_bytes(16 << 20), |layer| layer);
    rig.store.fail_on("append", Fault::Delay(millis(100)));
    let mut clients = Vec::new();
    for number in 0..200 {
        let body = rig.get(&format!("s{number}"), None).await.into_body();
        clients.push(tokio::spawn(watch(body, tokio::time::Instant::now())));
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!((rig.sse.health().recorded, rig.sse.health().lost), (200 * script.events, 0));
}

/// While an event waits for the store, a body that makes only comments stays within the window too.
#[tokio::test(start_paused = true)]
async fn g8_comments_are_no_more_than_the_window_either() {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let (sse, guardian) =
        ResilientSse::builder(store.clone()).anonymous().durability(Durability::BeforeSend).build().unwrap();
    let guardian = tokio::spawn(guardian);
    store.fail_on("append", Fault::Delay(millis(100)));
    let taken = Arc::new(AtomicU64::new(0));
    let counts = taken.clone();
    let inner = service_fn(move |_: Request<Empty<Bytes>>| {
        let counts = counts.clone();
        async move {
            let frames = futures_util::stream::iter((0..300_000_u64).map(move |number| {
                counts.store(number, Ordering::SeqCst);
                let text =
                    if number == 0 { "data: 1\n\n" } else { ": a comment of some length, sent again and again\n\n" };
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(text.as_bytes())))
            }));
            Ok::<_, Infallible>(
                Response::builder().header("content-type", "text/event-stream").body(StreamBody::new(frames)).unwrap(),
            )
        }
    });
    let app = ServiceBuilder::new().layer(sse.generation().id(StreamId::path("/chat/{id}"))).service(inner);
    let request = Request::get("/chat/a").body(Empty::<Bytes>::new()).unwrap();
    let mut body = app.oneshot(request).await.unwrap().into_body();
    let mut first = Vec::new();
    while !String::from_utf8_lossy(&first).contains("data: 1") {
        first = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    }
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken < 10_000, "{taken} comments were taken in before the first event");
    guardian.abort();
}

/// Another node ends the stream while a window waits for the store, and the body has ended: only events in the log are
/// delivered.
#[tokio::test(start_paused = true)]
async fn g2_what_the_store_never_took_is_not_given_before_another_s_end() {
    let script = Script { events: 500, every: Duration::ZERO, ..Script::default() };
    let rig = Rig::with(true, script, |hub| hub.durability(Durability::BeforeSend), |layer| layer);
    rig.store.fail_on("append", Fault::Delay(millis(200)));
    let client = rig.client().await;
    tokio::time::sleep(millis(100)).await;
    let epoch = rig.store.inner().info(key("a")).await.unwrap().unwrap().epoch;
    let ending = Ending::supplied(StreamState::Cancelled, reason::STOPPED);
    let close = Close { key: key("a"), epoch: Some(epoch), ending, last: None, if_deadline: None, hook: None };
    rig.store.inner().close(close).await.unwrap();
    let seen = client.await.unwrap();
    let info = rig.store.inner().info(key("a")).await.unwrap().unwrap();
    let last = info.ended.unwrap().last;
    let beyond = seen.iter().filter(|seen| seen.name == "message" && seen.event_id() > last).count();
    assert_eq!(beyond, 0);
}
