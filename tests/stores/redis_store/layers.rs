//! A hub on a real server: metadata that handlers keep before they answer, and streams that run repeatedly.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use resilient_sse::{
    Event, Owner, RedisStore, ResilientSse, StreamContext, StreamId, StreamInfo, StreamKey, StreamSpec, StreamState,
};
use tokio::task::AbortHandle;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use crate::{redis_store::steps::until, support::redis::RedisServer};

/// A hub, and the guardian that runs for it.
struct Hub {
    sse: ResilientSse,
    guardian: AbortHandle,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.guardian.abort();
    }
}

async fn hub(server: &RedisServer, max_events: usize) -> Hub {
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let (sse, guardian) = ResilientSse::builder(store).anonymous().max_log_events(max_events).build().unwrap();
    Hub { sse, guardian: tokio::spawn(guardian).abort_handle() }
}

fn key(id: &str) -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new(id).unwrap())
}

impl Hub {
    async fn info(&self, id: &str) -> Option<StreamInfo> {
        self.sse.registry().stream(&key(id)).await.unwrap()
    }
}

fn events(text: &'static str) -> Response<Full<Bytes>> {
    Response::builder().header("content-type", "text/event-stream").body(Full::from(text)).unwrap()
}

/// Sends a request through a layer to a handler. Returns the status and the whole body.
async fn ask<F, R>(layer: &resilient_sse::ResilientSseLayer, id: &str, handler: F) -> (StatusCode, String)
where
    F: Fn(StreamContext) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let inner = service_fn(move |request: Request<()>| {
        let context = request.extensions().get::<StreamContext>().cloned().unwrap();
        let answer = handler(context);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let app = ServiceBuilder::new().layer(layer.clone()).service(inner);
    let request = Request::get(format!("/s/{id}")).header("accept", "text/event-stream").body(()).unwrap();
    let answer = app.oneshot(request).await.unwrap();
    let status = answer.status();
    let mut text = Vec::new();
    let mut body = std::pin::pin!(answer.into_body());
    while let Some(Ok(frame)) = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap() {
        text.extend_from_slice(frame.data_ref().unwrap());
    }
    (status, String::from_utf8(text).unwrap())
}

/// A handler that keeps metadata and then fails leaves nothing: the client's next attempt runs it again.
#[tokio::test(flavor = "multi_thread")]
async fn g11_metadata_and_then_a_failure_leave_nothing() {
    let server = RedisServer::start();
    let hub = hub(&server, 1000).await;
    let layer = hub.sse.generation().id(StreamId::path("/s/{id}"));
    // Fail at once, while the metadata may still be on its way, and also after it has arrived.
    for (id, takes) in [("at-once", Duration::ZERO), ("late", Duration::from_millis(100))] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let handler = move |context: StreamContext| {
            let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if !first {
                    return events("data: 0\n\ndata: 1\n\n");
                }
                context.metadata("job", "7").unwrap();
                tokio::time::sleep(takes).await;
                Response::builder().status(503).body(Full::default()).unwrap()
            }
        };
        assert_eq!(ask(&layer, id, handler.clone()).await.0, StatusCode::SERVICE_UNAVAILABLE);
        until("the registration is taken back", async || hub.info(id).await.is_none()).await;
        let (status, body) = ask(&layer, id, handler).await;
        assert_eq!((status, calls.load(Ordering::SeqCst)), (StatusCode::OK, 2), "{id}: {body}");
        assert_eq!(body.matches("data: ").count(), 4, "connected, both events, the end: {body}");
        let info = hub.info(id).await.unwrap();
        assert_eq!((info.state, info.metadata), (StreamState::Completed, Vec::new()), "{id}");
    }
}

async fn stands_still(hub: &Hub, id: &str) {
    let stands = async || hub.info(id).await.is_some_and(|info| info.state == StreamState::Interrupted);
    until("its run is over", stands).await;
}

/// Guarantee G6: a feed whose clients come and go grows only with its events, and keeps them.
#[tokio::test(flavor = "multi_thread")]
async fn g6_a_feed_does_not_grow_by_its_visitors() {
    let server = RedisServer::start();
    let hub = hub(&server, 100).await;
    let layer = hub.sse.feed().id(StreamId::path("/s/{id}"));
    ask(&layer, "news", |_| async { events("data: once\n\n") }).await;
    stands_still(&hub, "news").await;
    for _ in 0..300 {
        ask(&layer, "news", |_| async { events("") }).await;
        stands_still(&hub, "news").await;
    }
    let entries = server.ask::<usize>(&["XLEN", "sse:events:{news}"]);
    assert!(entries <= 5, "{entries} entries after 300 visits");
    for _ in 0..20 {
        stands_still(&hub, "news").await;
        ask(&layer, "news", |context| async move {
            context.metadata(format!("run-{}", context.epoch().unwrap()), "x".repeat(3000)).unwrap();
            events("data: 1\n\n")
        })
        .await;
    }
    let kept: usize = hub.info("news").await.unwrap().metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!((3000..=4096).contains(&kept), "{kept} bytes of metadata");
}

/// A relay's client that was told of an expiry continues with later events, after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_send_after_expiry_reaches_who_follows() {
    let server = RedisServer::start();
    let hub = hub(&server, 100).await;
    let (owner, id) = (Owner::ANONYMOUS, StreamId::new("quiet").unwrap());
    let first = hub.sse.publisher().send(&owner, &id, Event::new("one")).await.unwrap();
    let ending = resilient_sse::Ending::supplied(StreamState::Expired, resilient_sse::reason::LIFETIME);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let close = resilient_sse::store::Close {
        key: key("quiet"),
        epoch: None,
        ending,
        last: None,
        if_deadline: None,
        hook: None,
    };
    resilient_sse::store::Store::close(&store, close).await.unwrap();
    let second = hub.sse.publisher().send(&owner, &id, Event::new("two")).await.unwrap();
    assert!(second.epoch > first.epoch);
    let end = format!("e{}-0", first.epoch + 1);
    for cursor in [first.to_string(), end] {
        let request = Request::get("/quiet").header("last-event-id", &cursor).body(()).unwrap();
        let answer = hub.sse.relay().oneshot(request).await.unwrap();
        let mut body = std::pin::pin!(answer.into_body());
        let mut text = String::new();
        while !text.contains("data: two") {
            let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap();
            text.push_str(&String::from_utf8_lossy(frame.unwrap().unwrap().data_ref().unwrap()));
        }
        assert!(text.contains("event: restart") && !text.contains("event: gap") && !text.contains("one"), "{text}");
        assert!(text.contains(&format!("id: {second}")), "{text}");
    }
}

/// A reader that comes back to another node is given the first entry that it missed before the log is read any further,
/// and nothing but the log is read for it.
#[tokio::test(flavor = "multi_thread")]
async fn g1_a_resume_begins_with_one_entry_of_the_log() {
    const EVENTS: usize = 20;
    let server = RedisServer::start();
    let (producer, node) = (hub(&server, 100_000).await, hub(&server, 100_000).await);
    let mut publication =
        producer.sse.publisher().open(StreamSpec::new(Owner::ANONYMOUS, key("job").id)).await.unwrap();
    for seq in 1..=EVENTS {
        publication.send(Event::new("x".repeat(20_000))).await.unwrap();
        // Send the events apart, so that each is an entry of its own: waiting events are written together.
        until("it is stored", async || node.info("job").await.unwrap().top.seq == seq as u64).await;
    }
    publication.complete(Event::new("done")).await.unwrap();
    let epoch = node.info("job").await.unwrap().epoch;
    let calls = |command: &str| {
        let stats = server.info(&format!("cmdstat_{command}")).unwrap_or_default();
        stats.split(',').find_map(|part| part.strip_prefix("calls=")?.parse::<u64>().ok()).unwrap_or(0)
    };
    let layer = node.sse.generation().id(StreamId::path("/s/{id}"));
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(events("data: again\n\n")) });
    let request = Request::get("/s/job").header("last-event-id", format!("e{epoch}-1")).body(()).unwrap();
    let (ranges, newest) = (calls("xrange"), calls("xrevrange"));
    let answer = ServiceBuilder::new().layer(layer).service(inner).oneshot(request).await.unwrap();
    assert_eq!(calls("xrange") - ranges, 1, "the first page is asked for before the head is sent");
    let mut body = std::pin::pin!(answer.into_body());
    let mut given = Vec::new();
    while let Some(frame) = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap() {
        given.push(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap());
    }
    let told =
        |text: &str| (1..=EVENTS).filter(|seq| text.contains(&format!("id: e{epoch}-{seq}\n"))).collect::<Vec<_>>();
    let first = given.iter().find(|text| text.contains("id: ")).unwrap();
    assert_eq!(told(first), [2], "one entry");
    assert_eq!(told(&given.concat()), (2..=EVENTS).collect::<Vec<_>>());
    assert!(given.concat().contains("data: done\n"));
    assert_eq!(calls("xrevrange") - newest, 0, "the log's newest entry is not looked at");
}
