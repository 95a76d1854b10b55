//! Readers come and go. The work goes on while anybody reads, whichever connection began it.

use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use resilient_sse::test_util::{Transcript, cut_after};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::support::example::{
    PATIENCE, Server, answer, by_user, connect_http2, connect_narrow, event_source, eventually, get, numbers, some,
    whole,
};

/// Repeats the request from a client's position.
fn again(path: &str, seen: &Transcript) -> http::request::Builder {
    event_source(path).header("last-event-id", seen.last_id())
}

async fn cut(server: &Server, events: usize, path: &str) -> Transcript {
    some(events, server.ask(event_source(path)).await.body_mut()).await
}

/// Reads on from a body whose first events were already taken.
async fn read_on(body: Incoming) -> Transcript {
    timeout(PATIENCE * 2, cut_after(usize::MAX, body)).await.expect("an end in time")
}

fn is_whole(seen: &Transcript, tokens: u64) {
    assert_eq!(numbers(seen), Vec::from_iter(0..tokens));
    assert_eq!(seen.names().last(), Some(&"completed"));
    assert!(!seen.names().contains(&"gap") && !seen.names().contains(&"restart"), "{:?}", seen.names());
}

#[tokio::test]
async fn the_detach_limit_does_not_count_the_time_in_which_somebody_reads() {
    let server = Server::start(&["--detach-at-most", "0.7", "--grace", "0.1"]);
    let path = "/api/stream/watched?n=60&rate=30";
    let first = cut(&server, 3, path).await;
    let rest = server.read(again(path, &first)).await;
    assert_eq!([numbers(&first), numbers(&rest)].concat(), Vec::from_iter(0..60));
    assert_eq!(rest.names().last(), Some(&"completed"));
    // The time without a reader does count.
    cut(&server, 3, "/api/stream/left?n=1000&rate=30").await;
    eventually(async || {
        let recover = by_user("/api/stream/left/recover");
        let (_, told) = answer(server.ask(recover).await).await;
        (told["status"] == "failed").then(|| assert_eq!(told["reason"], "detach_timeout"))
    })
    .await;
}

/// Reads one event, then nothing for longer than the stall limit (10 s), then the rest.
async fn pauses(server: &Server, path: &str) -> (Transcript, Transcript) {
    let mut sender = connect_narrow(server.address).await;
    let request = event_source(path).body(Full::default()).unwrap();
    let mut body = sender.send_request(request).await.expect("an answer").into_body();
    let first = some(1, &mut body).await;
    sleep(Duration::from_millis(11_500)).await;
    (first, read_on(body).await)
}

#[tokio::test]
async fn g8_a_client_that_does_not_read_for_12_s_and_never_leaves_misses_nothing() {
    // A slow client's time does not count as that of a client that left, and the log holds enough.
    let slow = Server::start(&["--detach-at-most", "1"]);
    // The work makes more than the log holds, so it waits for the only client.
    let tight = Server::start(&["--max-events", "500"]);
    let (attached, behind) = tokio::join!(
        pauses(&slow, "/api/stream/slow?n=300&rate=25&size=60000"),
        pauses(&tight, "/api/stream/tight?n=6000&rate=0&size=4096"),
    );
    for ((first, rest), tokens) in [(attached, 300), (behind, 6000)] {
        // The cut lies within a frame, whose other events were never read.
        let (first, rest) = (String::from_utf8(first.bytes).unwrap(), String::from_utf8(rest.bytes).unwrap());
        let told = [first, rest].concat();
        assert!(!told.contains("event: gap") && !told.contains("event: restart"), "it missed something");
        let numbers = told.match_indices(r#"{"s":"#).map(|(at, found)| {
            let digits = told[at + found.len()..].split(',').next();
            digits.and_then(|digits| digits.parse::<u64>().ok()).expect("a number")
        });
        assert_eq!(numbers.collect::<Vec<_>>(), Vec::from_iter(0..tokens));
        assert!(told.contains("event: completed"), "it is told of the end");
    }
}

#[tokio::test]
async fn no_stream_ends_because_all_clients_reconnect_at_once() {
    const STREAMS: u64 = 1100;
    let server = Server::start(&["--grace", "0.1"]);
    // Many streams share a connection, as through proxies.
    let connect = || async {
        let mut connections = Vec::new();
        for _ in 0..STREAMS / 100 {
            connections.push(connect_http2(server.address).await);
        }
        connections
    };
    let ask = |stream: u64, cursor: String| {
        let request = event_source(&format!("http://test/api/stream/s{stream}?n=1&rate=0&end=never"));
        let request = if cursor.is_empty() { request } else { request.header("last-event-id", cursor) };
        request.body(Full::default()).unwrap()
    };
    let mut cursors = vec![String::new(); STREAMS as usize];
    for visit in 0..2 {
        let mut connections = connect().await;
        let mut bodies = Vec::new();
        for stream in 0..STREAMS {
            let connection = &mut connections[(stream % (STREAMS / 100)) as usize];
            let request = ask(stream, cursors[stream as usize].clone());
            let response = connection.send_request(request).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            let mut body = response.into_body();
            if visit == 0 {
                let seen = some(1, &mut body).await;
                cursors[stream as usize] = seen.last_id().to_owned();
            }
            bodies.push(body);
        }
        if visit == 0 {
            drop((bodies, connections));
            eventually(async || (server.figure("detached").await == STREAMS).then_some(())).await;
            continue;
        }
        eventually(async || (server.figure("followers").await == STREAMS).then_some(())).await;
        let (_, health) = server.json("/healthz").await;
        assert_eq!((&health["active"], &health["ended"]["failed"]), (&json!(STREAMS), &json!(0)), "{health}");
    }
}

#[tokio::test]
async fn a_user_s_abandoned_streams_cost_no_neighbour_his() {
    let server = Server::start(&["--grace", "0.1"]);
    let mut connection = connect_http2(server.address).await;
    for stream in 0..1000 {
        let path = format!("http://test/api/stream/a{stream}?n=1&rate=0&end=never");
        let request = get(&path).header("x-user-id", "big").body(Full::default()).unwrap();
        let mut body = connection.send_request(request).await.expect("an answer").into_body();
        body.frame().await.expect("a frame").expect("no error");
    }
    drop(connection);
    eventually(async || (server.figure("detached").await == 1000).then_some(())).await;
    let path = "/api/stream/y?n=60&rate=60";
    let first = cut(&server, 10, path).await;
    eventually(async || (server.figure("detached").await == 1001).then_some(())).await;
    let rest = server.read(again(path, &first)).await;
    assert_eq!([numbers(&first), numbers(&rest)].concat(), Vec::from_iter(0..60));
    assert_eq!(rest.names().last(), Some(&"completed"));
}

#[tokio::test]
async fn a_reader_that_leaves_ends_no_other_s_work() {
    let others = ["cancel", "interrupt", "detach"].map(async |policy| {
        let server = Server::start(&["--on-disconnect", policy, "--grace", "0"]);
        let path = "/api/stream/x?n=40&rate=40";
        let first = server.ask(event_source(path)).await;
        let mut first = first.into_body();
        some(5, &mut first).await;
        let mut second = server.ask(event_source(path)).await.into_body();
        let begun = some(1, &mut second).await;
        assert_eq!(numbers(&begun), [0]);
        drop(first);
        // The cut lies within a frame.
        let rest = read_on(second).await;
        let told = String::from_utf8([begun.bytes, rest.bytes].concat()).unwrap();
        assert!(told.contains("event: completed") && !told.contains("event: restart"), "{policy}: {told}");
        assert_eq!(told.matches(r#"{"s":"#).count(), 40, "{policy}: {told}");
        assert_eq!(server.figure("started").await, 1, "{policy}");
    });
    let [cancel, interrupt, detach] = others;
    tokio::join!(cancel, interrupt, detach);
}

#[tokio::test]
async fn a_page_that_mounts_twice_runs_its_work_once() {
    for policy in ["cancel", "interrupt"] {
        let server = Server::start(&["--on-disconnect", policy]);
        for round in 0..10 {
            let path = format!("/api/stream/s{round}?n=10&rate=100");
            // React's strict mode: mounted, unmounted, mounted.
            let first = server.ask(event_source(&path)).await;
            sleep(Duration::from_millis(5)).await;
            let second = server.ask(event_source(&path));
            let cut = async {
                sleep(Duration::from_millis(1)).await;
                drop(first);
            };
            let (second, ()) = tokio::join!(second, cut);
            is_whole(&whole(second).await, 10);
        }
        assert_eq!(server.figure("started").await, 10, "{policy}");
    }
}

#[tokio::test]
async fn a_reload_is_no_departure_but_leaving_is() {
    for (policy, status) in [("cancel", "cancelled"), ("interrupt", "interrupted")] {
        let server = Server::start(&["--on-disconnect", policy, "--grace", "0.5"]);
        let path = "/api/stream/reload?n=20&rate=40";
        cut(&server, 3, path).await;
        sleep(Duration::from_millis(50)).await;
        // A page that reloads has no cursor: it gets everything from the start.
        is_whole(&server.read(event_source(path)).await, 20);
        assert_eq!(server.figure("started").await, 1, "{policy}");

        let path = "/api/stream/left?n=1000&rate=40";
        cut(&server, 3, path).await;
        let told = eventually(async || {
            let recover = by_user("/api/stream/left/recover");
            let (_, told) = answer(server.ask(recover).await).await;
            (told["status"] != "active").then_some(told)
        })
        .await;
        assert_eq!(told["status"], status);
        if policy == "cancel" {
            assert_eq!(told["reason"], "disconnected");
        }
    }
}
