//! The responses to clients while the store is away.

use std::collections::BTreeMap;

use http::{HeaderMap, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::{
    node,
    support::{
        example::{Server, event_source, eventually, get, numbers, some, whole},
        redis::RedisServer,
    },
};

/// Returns the headers that say how to treat a response, without those that differ from stream to stream.
fn manners(headers: &HeaderMap) -> BTreeMap<String, String> {
    let own = [header::DATE.as_str(), "x-stream-id", "x-stream-recorded", "transfer-encoding"];
    let kept = headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    kept.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

/// Waits until the node has noticed that its store is away, which delays some of its streams.
async fn cut_off(node: &Server) {
    eventually(async || {
        node.get("/api/stream/first?n=1&rate=0").await;
        (node.json("/healthz").await.1["breaker"] == "open").then_some(())
    })
    .await;
}

fn is_unrecorded(response: &Response<Incoming>) -> bool {
    response.headers().get("x-stream-recorded").is_some_and(|value| value == "false")
}

/// G7: a stream that cannot be recorded keeps everything else that the layer adds.
#[tokio::test(flavor = "multi_thread")]
async fn g7_an_unrecorded_stream_is_heartbeaten_and_passes_proxies() {
    let redis = RedisServer::start();
    let node = node(&redis.url(), &["--heartbeat", "0.2"]);
    let mut recorded = node.ask(event_source("/api/stream/before?n=1&rate=0&end=never")).await;
    assert!(!is_unrecorded(&recorded));
    let expected = manners(recorded.headers());
    for name in ["cache-control", "x-accel-buffering", "x-content-type-options", "x-stream-heartbeat"] {
        assert!(expected.contains_key(name), "{name}: {expected:?}");
    }
    some(1, recorded.body_mut()).await;
    redis.kill();
    // The first requests may find the store gone before the node has noticed.
    cut_off(&node).await;
    for path in ["/api/stream/x?n=3&rate=1.5", "/api/stream?n=3&rate=1.5"] {
        let response = node.ask(event_source(path)).await;
        assert!(response.status() == StatusCode::OK && is_unrecorded(&response), "{path}: {response:?}");
        assert_eq!(manners(response.headers()), expected, "{path}");
        let seen = whole(response).await;
        assert_eq!((numbers(&seen), seen.names().last()), (vec![0, 1, 2], Some(&"completed")), "{path}");
        assert!(seen.comments >= 4, "{path}: {} heartbeats in two silences of 0.67 s", seen.comments);
        assert!(seen.retry.is_some() && seen.ended, "{path}");
        assert!(
            seen.events.iter().all(|event| event.id.is_empty()),
            "{path}: a cursor that nobody can serve: {seen:?}"
        );
    }
}

/// G12: an outage is an error for a client that takes the end of a body for the end of the answer; an `EventSource` is
/// told to come again, since it would give up for good at 503.
#[tokio::test(flavor = "multi_thread")]
async fn g12_an_outage_is_no_empty_success() {
    for voice in ["named", "openai", "silent"] {
        let redis = RedisServer::start();
        let node = node(&redis.url(), &["--voice", voice, "--on-unavailable", "retry"]);
        redis.kill();
        cut_off(&node).await;
        for path in ["/api/stream/x?n=3&rate=0", "/api/stream?n=3&rate=0"] {
            for accept in [None, Some("application/json"), Some("*/*")] {
                let request = get(path);
                let request = match accept {
                    Some(accept) => request.header(header::ACCEPT, accept),
                    None => request,
                };
                let refused = node.ask(request).await;
                assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{voice} {path} {accept:?}");
                assert!(refused.headers().contains_key(header::RETRY_AFTER), "{voice} {path} {accept:?}");
            }
            let response = node.ask(event_source(path)).await;
            assert_eq!(response.status(), StatusCode::OK, "{voice} {path}");
            let seen = whole(response).await;
            assert!(seen.retry.is_some() && !seen.ended && numbers(&seen).is_empty(), "{voice} {path}: {seen:?}");
            // The same with a cursor.
            let back = node.ask(event_source(path).header("last-event-id", "e1700000000000-7")).await;
            assert_eq!(back.status(), StatusCode::OK, "{voice} {path}");
            assert!(!whole(back).await.ended, "{voice} {path}");
        }
        assert_eq!(node.figure("started").await, 0, "{voice}");
    }
}

/// With `--on-unavailable status` every client without a cursor is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_may_be_a_status() {
    let redis = RedisServer::start();
    let node = node(&redis.url(), &["--on-unavailable", "status"]);
    redis.kill();
    cut_off(&node).await;
    for request in [get("/api/stream/x?n=3&rate=0"), event_source("/api/stream/x?n=3&rate=0")] {
        assert_eq!(node.ask(request).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    let back = node.ask(event_source("/api/stream/x?n=3&rate=0").header("last-event-id", "e1700000000000-7")).await;
    let (status, seen) = (back.status(), whole(back).await);
    assert_eq!((status, seen.ended), (StatusCode::OK, false));
}
