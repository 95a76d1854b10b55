//! Streams that are cut, resumed, ended, stopped, and requested by other users.

use std::time::Duration;

use http::StatusCode;
use http_body_util::Full;
use resilient_sse::test_util::collect;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::example::{PATIENCE, Server, answer, by_user, event_source, eventually, get, numbers};

#[tokio::test]
async fn a_cut_stream_resumes_at_the_very_next_event() {
    let server = Server::start(&[]);
    let path = "/api/stream/chat?n=30&rate=100";
    let first = server.cut_after(7, path).await;
    assert_eq!(numbers(&first), Vec::from_iter(0..7));

    let with_header = get(path).header("last-event-id", first.last_id()).body(Full::default()).unwrap();
    let with_header = server.send(with_header).await;
    assert_eq!(with_header.headers()["x-stream-id"], "chat");
    let second = resilient_sse::test_util::cut_after(8, with_header.into_body()).await;
    assert_eq!(numbers(&second), Vec::from_iter(7..15));

    let third = server.collect(&format!("{path}&last_event_id={}", second.last_id())).await;
    assert_eq!(numbers(&third), Vec::from_iter(15..30));
    let end = third.events.last().expect("an end");
    assert_eq!((&*end.name, &*end.data), ("completed", r#"{"type":"completed","data":{"tokens":30}}"#));

    let done = server.get(&format!("{path}&last_event_id={}", third.last_id())).await;
    assert_eq!(done.status(), StatusCode::NO_CONTENT);
    let (status, told) = server.json("/api/stream/chat/recover").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&told["status"], &told["terminalEventType"]), (&json!("completed"), &json!("completed")));
    assert_eq!(told["terminalEventData"], json!({ "tokens": 30 }));
}

#[tokio::test]
async fn nothing_is_left_after_the_recovery_window() {
    let server = Server::start(&["--recovery-window", "0.3", "--sweep", "0.2", "--stale", "0.5"]);
    let seen = server.read(event_source("/api/stream/brief?n=3&rate=0")).await;
    eventually(async || {
        let (status, told) = answer(server.ask(by_user("/api/stream/brief/recover")).await).await;
        (status == StatusCode::NOT_FOUND && told == json!({ "status": "not_found" })).then_some(())
    })
    .await;
    assert_eq!(server.listed("").await, [""; 0]);
    let [.., before, end] = &seen.events[..] else { panic!("too few: {seen:?}") };
    let back = async |cursor: &str| {
        let request = by_user("/api/stream/brief").header("last-event-id", cursor);
        server.ask(request).await.status()
    };
    assert_eq!(back(&before.id).await, StatusCode::NOT_FOUND, "the handler does not run a second time");
    assert_eq!(back(&end.id).await, StatusCode::NO_CONTENT, "a client that has the end has everything");
    assert_eq!(server.figure("started").await, 1);
}

#[tokio::test]
async fn an_event_source_finds_its_stream_again_by_its_last_id() {
    let server = Server::start(&[]);
    let path = "/api/stream?n=20&rate=100";
    let (mut last_id, mut seen) = (String::new(), Vec::new());
    loop {
        // Like a browser: the same URL each time, and only the last id.
        let mut request = event_source(path);
        if !last_id.is_empty() {
            request = request.header("last-event-id", &last_id);
        }
        let response = server.send(request.body(Full::default()).unwrap()).await;
        if response.status() == StatusCode::NO_CONTENT {
            break;
        }
        assert_eq!(response.status(), StatusCode::OK);
        let part = resilient_sse::test_util::cut_after(6, response.into_body()).await;
        assert!(part.retry.is_some_and(|retry| (1000..=5000).contains(&retry)), "{:?}", part.retry);
        seen.extend(numbers(&part));
        part.last_id().clone_into(&mut last_id);
    }
    assert_eq!(seen, Vec::from_iter(0..20));
    assert_eq!(server.listed("").await.len(), 1);
}

#[tokio::test]
async fn a_client_that_closes_its_half_misses_nothing() {
    let server = Server::start(&[]);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = "GET /api/stream/half?n=10&rate=100 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    // Headers first, so that the stream is known to run when this half is closed.
    let mut seen = vec![0; 1];
    stream.read_exact(&mut seen).await.unwrap();
    stream.shutdown().await.unwrap();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut seen)).await.expect("an end in time").unwrap();

    let seen = String::from_utf8(seen).unwrap();
    let cursor = seen.lines().filter_map(|line| line.strip_prefix("id: ")).next_back();
    let heard = seen.matches(r#"{"s":"#).count() as u64;
    let path = "/api/stream/half?n=10&rate=100";
    let rest = match cursor {
        Some(cursor) => server.get(&format!("{path}&last_event_id={cursor}")).await,
        None => server.get(path).await,
    };
    // A client that has the end gets nothing more.
    if rest.status() != StatusCode::NO_CONTENT {
        let rest = collect(rest.into_body()).await;
        assert_eq!(numbers(&rest), Vec::from_iter(heard..10));
        assert_eq!(rest.names().last(), Some(&"completed"));
    }
    server.until_status("half", "completed").await;
}

#[tokio::test]
async fn every_ending_is_told_and_kept() {
    let server = Server::start(&[]);
    for (end, status, reason) in [
        ("completed", "completed", None),
        ("failed", "failed", None),
        ("eof", "completed", Some("eof")),
        ("error", "failed", Some("error")),
    ] {
        let seen = server.collect(&format!("/api/stream/{end}?n=2&rate=0&end={end}")).await;
        assert_eq!(numbers(&seen), [0, 1], "{end}");
        assert_eq!(seen.names().last(), Some(&status), "{end}");
        let (_, told) = server.json(&format!("/api/stream/{end}/recover")).await;
        assert_eq!((&told["status"], &told["reason"]), (&json!(status), &json!(reason)), "{end}");
    }
}

#[tokio::test]
async fn the_plain_route_tells_the_same() {
    let server = Server::start(&[]);
    let query = "n=3000&rate=0&size=200&file=cicero.txt";
    let layered = server.collect(&format!("/api/stream/layered?{query}")).await;
    let plain = server.collect(&format!("/plain/x?{query}")).await;
    assert_eq!(layered.data(), plain.data());
    assert_eq!(numbers(&plain), Vec::from_iter(0..3000));
    assert!(plain.events[..3000].iter().all(|event| event.data.len() == 200));
    assert!(plain.events.iter().all(|event| event.id.is_empty()), "no ids without the layer");
}

#[tokio::test]
async fn an_event_may_have_a_mebibyte() {
    let server = Server::start(&[]);
    let seen = server.collect("/api/stream/large?n=2&rate=0&size=1048576").await;
    assert_eq!(seen.data()[1].len(), 1 << 20);
    assert_eq!(seen.names(), ["message", "message", "completed"]);
}

#[tokio::test]
async fn a_text_is_told_word_by_word() {
    let server = Server::start(&[]);
    let seen = server.collect("/api/stream/speech?rate=0&file=gettysburg.txt").await;
    let payloads = seen.data().into_iter().map(|data| serde_json::from_str::<Value>(data).unwrap());
    let told: String = payloads.filter_map(|payload| payload["data"]["text"].as_str().map(str::to_owned)).collect();
    assert_eq!(told, include_str!("../../examples/texts/gettysburg.txt"));
}

#[tokio::test]
async fn a_stopped_stream_is_cancelled_for_its_client() {
    let server = Server::start(&[]);
    let client = server.get("/api/stream/long?n=1&rate=0&end=never").await;
    server.until_status("long", "active").await;
    assert_eq!(server.delete("/api/stream/long").await, StatusCode::ACCEPTED);
    let seen = tokio::time::timeout(PATIENCE, collect(client.into_body())).await.expect("an end in time");
    let end = seen.events.last().expect("an end");
    assert_eq!((&*end.name, &*end.data), ("cancelled", r#"{"reason":"stopped"}"#));
    assert_eq!(server.until_status("long", "cancelled").await["reason"], "stopped");
    assert_eq!(server.delete("/api/stream/long").await, StatusCode::ACCEPTED, "stopped before");
    assert_eq!(server.delete("/api/stream/none").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_foreign_stream_is_a_missing_one() {
    let server = Server::start(&[]);
    let by =
        |user: &str, request: http::request::Builder| request.header("x-user-id", user).body(Full::default()).unwrap();
    let path = "/api/stream/mine?n=2&rate=0&end=never";
    let _ada = server.send(by("ada", get(path))).await;
    eventually(async || {
        let (_, streams) = answer(server.send(by("ada", get("/api/streams"))).await).await;
        (streams[0]["status"] == "active").then_some(())
    })
    .await;

    let (status, _) = answer(server.send(by("bob", get("/api/stream/mine/recover"))).await).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let stop = http::Request::delete("/api/stream/mine").header("host", "test");
    assert_eq!(server.send(by("bob", stop)).await.status(), StatusCode::NOT_FOUND);
    let (_, none) = answer(server.send(by("bob", get("/api/streams"))).await).await;
    assert_eq!(none, json!([]));

    // For another user the same name is another stream.
    let bob = collect(server.send(by("bob", get("/api/stream/mine?n=1&rate=0"))).await.into_body()).await;
    assert_eq!(bob.names(), ["message", "completed"]);
    let (_, ada) = answer(server.send(by("ada", get("/api/stream/mine/recover"))).await).await;
    assert_eq!(ada["status"], "active");
}

#[tokio::test]
async fn a_user_s_streams_are_listed_newest_first_page_by_page() {
    let server = Server::start(&[]);
    for id in ["a", "b", "c", "d", "e"] {
        server.read(by_user(&format!("/api/stream/{id}?n=1&rate=0"))).await;
        // Streams of one millisecond are listed by name.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    server.collect("/api/stream/anonymous?n=1&rate=0").await;
    assert_eq!(server.listed("").await, ["e", "d", "c", "b", "a"]);
    assert_eq!(server.listed("?limit=2").await, ["e", "d"]);
    assert_eq!(server.listed("?limit=2&after=d").await, ["c", "b"]);
    assert_eq!(server.listed("?limit=2&after=b").await, ["a"]);
    assert_eq!(server.listed("?after=a").await, [""; 0]);
    // The id of an anonymous stream is its only protection.
    assert_eq!(server.json("/api/streams").await, (StatusCode::OK, json!([])));
}
