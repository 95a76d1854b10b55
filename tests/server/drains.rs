//! The process drains: the endings of its clients, the runs of its hooks, and the time that it takes.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::example::{Server, by_user, event_source, eventually, numbers, some, until, whole};

/// A file of the test's own. Dropping the handle removes it.
struct Lines(PathBuf);

impl Lines {
    fn new(test: &str) -> Self {
        Self(std::env::temp_dir().join(format!("resilient-sse-{test}-{}.jsonl", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// The lines of each stream, by its id.
    fn read(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let mut lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no line of JSON: {line}")))
            .collect();
        lines.sort_by_key(|line| line["streamId"].to_string());
        lines
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn g3_hooks_are_awaited_when_the_process_goes_down() {
    let lines = Lines::new("drained");
    let server = Server::start(&["--hook-file", lines.path(), "--hook-delay", "0.5", "--drain", "3"]);
    // One stream has just ended, one ends in time, one is ended at the deadline.
    server.read(by_user("/api/stream/done?n=3&rate=0")).await;
    let ending = server.ask(by_user("/api/stream/ending?n=20&rate=40")).await;
    let never = server.ask(by_user("/api/stream/never?n=2&rate=0&end=never")).await;
    assert_eq!(lines.read(), [Value::Null; 0]);
    server.signal("TERM");
    let (ending, never) = tokio::join!(whole(ending), whole(never));
    assert_eq!(numbers(&ending), Vec::from_iter(0..20), "a client that does not come again is served on");
    assert_eq!((ending.names().last(), never.names().last()), (Some(&"completed"), Some(&"failed")));
    assert_eq!(server.exit().await.code(), Some(0));
    let line = |id: &str, status: &str, reason: Value, events: u64| json!({ "streamId": id, "status": status, "reason": reason, "events": events, "missing": 0 });
    let expected = [
        line("done", "completed", Value::Null, 3),
        line("ending", "completed", Value::Null, 20),
        line("never", "failed", json!("shutdown"), 2),
    ];
    assert_eq!(lines.read(), expected);
}

#[tokio::test]
async fn hooks_write_whole_lines_and_are_run_again_where_they_cannot() {
    let lines = Lines::new("again");
    let server = Server::start(&["--hook-file", lines.path(), "--sweep", "0.2", "--stale", "0.3"]);
    let many = (0..100).map(|stream| {
        let server = &server;
        async move { server.read(by_user(&format!("/api/stream/s{stream:02}?n=2&rate=0&size=500"))).await }
    });
    futures_util::future::join_all(many).await;
    eventually(async || (lines.read().len() == 100).then_some(())).await;
    // Nothing can be appended to a folder.
    std::fs::remove_file(&lines.0).unwrap();
    std::fs::create_dir(&lines.0).unwrap();
    server.read(by_user("/api/stream/late?n=2&rate=0")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::remove_dir(&lines.0).unwrap();
    let told = eventually(async || Some(lines.read()).filter(|lines| !lines.is_empty())).await;
    assert_eq!(told[0]["streamId"], "late");
}

#[tokio::test]
async fn a_feed_does_not_hold_the_process() {
    let server = Server::start(&["--on-disconnect", "interrupt"]);
    let mut client = server.ask(event_source("/api/stream/feed?n=1&rate=0&end=never")).await;
    let first = some(1, client.body_mut()).await;
    assert_eq!(numbers(&first), [0]);
    let asked = Instant::now();
    server.signal("TERM");
    let rest = whole(client).await;
    assert!(rest.events.is_empty(), "it is not over: {rest:?}");
    assert!(first.retry.or(rest.retry).is_some(), "it says when to come again");
    assert_eq!(server.exit().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    for [first, second] in [["TERM", "TERM"], ["INT", "INT"], ["TERM", "INT"]] {
        let server = Server::start(&[]);
        let client = server.ask(by_user("/api/stream/never?n=1&rate=0&end=never")).await;
        server.signal(first);
        server.until_closed().await;
        let asked = Instant::now();
        server.signal(second);
        assert_eq!(server.exit().await.code(), Some(130), "SIG{first}, SIG{second}");
        assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?}", asked.elapsed());
        drop(client);
    }
}

/// Reads a stream without an end while its process drains. Returns all bytes, and whether the body ended cleanly.
async fn drained(voice: &str, request: http::request::Builder) -> (String, bool) {
    let server = Server::start(&["--voice", voice, "--drain", "0.6"]);
    let mut body = server.ask(request).await.into_body();
    let first = until(r#"{"s":0,"#, &mut body).await;
    server.signal("TERM");
    let rest = some(usize::MAX, &mut body).await;
    assert_eq!(server.exit().await.code(), Some(0), "{voice}");
    (first + &String::from_utf8(rest.bytes).unwrap(), rest.ended)
}

#[tokio::test]
async fn g12_no_drain_lets_an_unfinished_stream_look_finished() {
    let path = "/api/stream/x?n=1&rate=0&end=never";
    let voices = ["named", "json", "openai", "silent"].map(async |voice| {
        // A browser's `EventSource` is let go, and reconnects.
        let (told, clean) = drained(voice, event_source(path)).await;
        assert!(!clean, "{voice}: {told}");
        assert!(told.contains("retry: "), "{voice}: {told}");
        // Any other client is served on until the stream ends as failed. It is told so, or its body breaks in a voice
        // without a word.
        let (told, clean) = drained(voice, by_user(path)).await;
        let word = match voice {
            "named" => "event: failed\ndata: {\"reason\":\"shutdown\"}",
            "json" => r#""type":"failed""#,
            "openai" => r#"data: {"error":{"#,
            _ => "retry: ",
        };
        assert!(told.contains(word), "{voice}: {told}");
        assert_eq!(clean, voice != "silent", "{voice}: {told}");
    });
    futures_util::future::join_all(voices).await;
}

#[tokio::test]
async fn g12_curl_fails_on_a_stream_that_breaks_off() {
    for voice in ["openai", "silent"] {
        let server = Server::start(&["--voice", voice, "--drain", "0.6"]);
        let url = format!("http://{}/api/stream/x?n=3&rate=0&end=never", server.address);
        let mut curl = Command::new("curl");
        curl.args(["-sN", "-H", "Accept: text/event-stream", &url]).stdout(Stdio::piped());
        let curl = curl.spawn().expect("curl is installed: apt-get install curl");
        eventually(async || (server.figure("recorded").await == 3).then_some(())).await;
        server.signal("TERM");
        let output = tokio::task::spawn_blocking(move || curl.wait_with_output()).await.unwrap().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(18), "a partial file: {told}");
        assert!(told.contains(r#"{"s":2,"#), "what was said before has arrived: {told}");
        assert_eq!(server.exit().await.code(), Some(0));
    }
}
