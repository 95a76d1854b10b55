//! Events that are posted, and the relay that follows them.

use http::StatusCode;
use http_body_util::Full;
use resilient_sse::test_util::{collect, cut_after};
use serde_json::json;

use crate::support::example::{PATIENCE, Server, get};

#[tokio::test]
async fn the_relay_waits_for_a_stream_and_follows_it() {
    let server = Server::start(&[]);
    let waiting = server.get("/api/relay/news").await;
    assert_eq!(waiting.status(), StatusCode::OK, "at once, though nobody has opened it");
    let follower = tokio::spawn(collect(waiting.into_body()));

    let events = "/api/stream/news/events";
    let (status, first) = server.post(events, r#"{"type":"token","data":{"b":1,"a":[2]}}"#).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    server.post(events, r#"{"type":"note","data":"two"}"#).await;
    let (status, last) = server.post(events, r#"{"type":"completed","data":null,"terminal":true}"#).await;
    assert_eq!(status, StatusCode::ACCEPTED);

    let seen = tokio::time::timeout(PATIENCE, follower).await.expect("an end in time").unwrap();
    let expected = [
        r#"{"type":"token","data":{"b":1,"a":[2]}}"#,
        r#"{"type":"note","data":"two"}"#,
        r#"{"type":"completed","data":null}"#,
    ];
    assert_eq!(seen.data(), expected);
    assert_eq!(seen.names(), ["message"; 3], "posted events have no name");
    assert_eq!(
        (seen.events[1].id.as_str(), seen.last_id()),
        (first["id"].as_str().unwrap(), last["id"].as_str().unwrap())
    );

    let (status, _) = server.post(events, r#"{"type":"token"}"#).await;
    assert_eq!(status, StatusCode::GONE);
    let again = get("/api/relay/news").header("last-event-id", seen.last_id()).body(Full::default()).unwrap();
    assert_eq!(server.send(again).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(server.json("/api/stream/news/recover").await.1["terminalEventType"], "completed");
}

#[tokio::test]
async fn the_stream_route_follows_what_is_published() {
    let server = Server::start(&[]);
    server.post("/api/stream/talk/events", r#"{"type":"token","data":1}"#).await;
    let follower = server.get("/api/stream/talk?n=5").await;
    let seen = cut_after(1, follower.into_body()).await;
    assert_eq!(seen.data(), [r#"{"type":"token","data":1}"#], "the handler does not run");
    server.post("/api/stream/talk/events", r#"{"type":"failed","data":{"why":"x"},"terminal":true}"#).await;
    let told = server.until_status("talk", "failed").await;
    assert_eq!(told["terminalEventData"], json!({ "why": "x" }));
}

#[tokio::test]
async fn nobody_posts_into_a_handler_s_stream() {
    let server = Server::start(&[]);
    let _client = server.get("/api/stream/busy?n=1&rate=0&end=never").await;
    server.until_status("busy", "active").await;
    let (status, why) = server.post("/api/stream/busy/events", r#"{"type":"token","data":1}"#).await;
    assert_eq!((status, why), (StatusCode::CONFLICT, json!("another producer holds the stream\n")));
}
