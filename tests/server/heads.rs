//! The meaning of a request's method and `Accept`, and how answers keep posted events.

use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::example::{Server, answer, by_user, get};

#[tokio::test]
async fn head_answers_at_once_and_begins_nothing() {
    let server = Server::start(&[]);
    for path in ["/api/stream/x", "/api/stream", "/api/stream/x/recover", "/api/relay/x", "/plain/x"] {
        let request = Request::head(path).header("host", "test").header("x-user-id", "u");
        let answer = timeout(Duration::from_secs(1), async {
            let response = server.ask(request).await;
            let status = response.status();
            (status, response.into_body().collect().await.expect("an end").to_bytes())
        });
        let (status, body) = answer.await.unwrap_or_else(|_| panic!("{path}: no answer within 1 s"));
        assert!(!status.is_server_error() && body.is_empty(), "{path}: {status}, {body:?}");
    }
    assert_eq!(server.listed("").await, [""; 0]);
    assert_eq!((server.figure("started").await, server.figure("active").await), (0, 0));
}

#[tokio::test]
async fn accept_is_read_as_http_says() {
    let server = Server::start(&[]);
    server.read(by_user("/api/stream/x?n=1&rate=0")).await;
    let table = [
        (None, "application/json"),
        (Some("*/*"), "application/json"),
        (Some("text/event-stream"), "text/event-stream"),
        (Some("Text/Event-Stream"), "text/event-stream"),
        (Some("application/json;q=0.5, text/event-stream"), "text/event-stream"),
        (Some("application/json, text/event-stream;q=0"), "application/json"),
        (Some("application/json, text/event-stream;q=0.9"), "application/json"),
        (Some("text/event-stream-foo"), "application/json"),
    ];
    for (accept, expected) in table {
        let request = by_user("/api/stream/x/recover");
        let request = match accept {
            Some(accept) => request.header(header::ACCEPT, accept),
            None => request,
        };
        let response = server.ask(request).await;
        assert_eq!(
            (response.status(), &response.headers()[header::CONTENT_TYPE]),
            (StatusCode::OK, &expected.parse().unwrap()),
            "{accept:?}"
        );
    }
}

#[tokio::test]
async fn g10_json_is_kept_as_it_was_posted() {
    let server = Server::start(&[]);
    let data = r#"{"z":1,"a":123456789012345678901234,"f":1.10,"e":1E+2,"s":"\u00e9"}"#;
    for (kind, terminal) in [("token", false), ("completed", true)] {
        let posted = format!(r#"{{"type":"{kind}","data":{data},"terminal":{terminal}}}"#);
        let (status, told) = server.post("/api/stream/j/events", &posted).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{told}");
        assert!(told["id"].as_str().is_some_and(|id| id.starts_with('e')), "{told}");
    }
    let relayed = server.collect("/api/relay/j").await;
    assert_eq!(
        relayed.data(),
        [format!(r#"{{"type":"token","data":{data}}}"#), format!(r#"{{"type":"completed","data":{data}}}"#)]
    );
    let raw = server.get("/api/stream/j/recover?events=true").await.into_body().collect().await.unwrap().to_bytes();
    let raw = String::from_utf8(raw.to_vec()).unwrap();
    assert!(raw.contains(&format!(r#""terminalEventData":{data}"#)), "{raw}");
    assert!(raw.contains(&format!(r#""json":{{"type":"token","data":{data}}}"#)), "{raw}");
}

#[tokio::test]
async fn a_missing_stream_and_a_malformed_user_are_told_apart() {
    let server = Server::start(&[]);
    let (status, told) = answer(server.ask(get("/api/stream/x/recover").header("x-user-id", "u")).await).await;
    assert_eq!((status, told), (StatusCode::NOT_FOUND, json!({ "status": "not_found" })));
    let (status, told) = answer(server.ask(get("/api/stream/x").header("x-user-id", "")).await).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{told}");
    assert_ne!(told, Value::Null);
}
