//! The process: its output, and its shutdown.

use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use resilient_sse::test_util::collect;

use crate::support::example::{PATIENCE, Server, command, eventually, numbers};

#[tokio::test]
async fn health_and_metrics_tell_how_the_node_is_doing() {
    let server = Server::start(&["--node", "here"]);
    server.cut_after(1, "/api/stream/left?n=1&rate=0&end=never").await;
    let health = eventually(async || {
        let (_, health) = server.json("/healthz").await;
        (health["detached"] == 1 && health["recorded"] == 1).then_some(health)
    })
    .await;
    assert_eq!(health["active"], 1);
    for field in
        ["followers", "lost", "orphaned", "storeErrors", "breaker", "frozen", "draining", "bypassed", "lastSweep"]
    {
        assert!(health.get(field).is_some(), "{field}: {health}");
    }
    let metrics = server.get("/metrics").await;
    assert!(metrics.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain"));
    let text = metrics.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("\nresilient_sse_active 1\n"));
    let page = server.get("/").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
}

#[tokio::test]
async fn a_signal_takes_it_down_in_order() {
    for signal in ["TERM", "INT"] {
        let server = Server::start(&["--drain", "5"]);
        // The stream ends in time. Its client is let go at once, so the stream outlives the client's connection.
        let running = server.get("/api/stream/run?n=30&rate=100").await;
        server.until_status("run", "active").await;
        server.signal(signal);
        let seen = tokio::time::timeout(PATIENCE, collect(running.into_body())).await.expect("an end in time");
        assert_eq!(numbers(&seen), Vec::from_iter(0..numbers(&seen).len() as u64));
        assert_eq!(server.exit().await.code(), Some(0), "SIG{signal}");
    }
}

#[tokio::test]
async fn nothing_holds_it_up_for_ever() {
    let server = Server::start(&["--drain", "0.2"]);
    let _streaming = server.get("/api/stream/never?n=1&rate=0&end=never").await;
    let _waiting = server.get("/api/relay/nobody").await;
    let _plain = server.get("/plain/never?n=1&rate=0&end=never").await;
    server.signal("TERM");
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_layer_sends_heartbeats_at_the_interval() {
    let server = Server::start(&["--heartbeat", "0.1"]);
    let response = server.get("/api/stream/quiet?n=1&rate=0&end=never").await;
    let mut body = response.into_body();
    let mut heard = String::new();
    while heard.matches(": heartbeat").count() < 3 {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("a heartbeat in time");
        heard.push_str(&String::from_utf8_lossy(frame.unwrap().unwrap().data_ref().unwrap()));
    }
}

#[test]
fn help_is_an_answer() {
    let output = command(&["--help"]).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("--recovery-window"));
}
