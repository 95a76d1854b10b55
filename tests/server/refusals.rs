//! Refused requests, each with its status and a sentence.

use http::{Request, StatusCode};
use http_body_util::Full;

use crate::support::example::{Server, answer, by_user, command, get};

#[tokio::test]
async fn bad_requests_are_answered_with_a_sentence() {
    let server = Server::start(&[]);
    let long = "a".repeat(129);
    let table = [
        ("/api/stream/x?n=-1", "`n` is"),
        ("/api/stream/x?n=many", "`n` is"),
        ("/api/stream/x?rate=fast", "`rate` is"),
        ("/api/stream/x?rate=-1", "`rate` is"),
        ("/api/stream/x?rate=inf", "`rate` is"),
        ("/api/stream/x?size=1048577", "`size` is"),
        ("/api/stream/x?end=badly", "`end` is one of"),
        ("/api/stream/x?file=../../Cargo.toml", "`file` is one of"),
        ("/api/stream?n=", "`n` is"),
        ("/plain/x?n=1.5", "`n` is"),
        ("/api/stream/a%20b", "a stream id is"),
        (&format!("/api/stream/{long}"), "a stream id is"),
        ("/api/stream/a%20b/recover", "a stream id is"),
        ("/api/relay/a%20b", "a stream id is"),
        ("/api/stream/x/recover?limit=0", "`limit` is"),
        ("/api/stream/x/recover?after=yesterday", "`after` is"),
        ("/api/streams?limit=0", "`limit` is"),
        ("/api/streams?limit=all", "`limit` is"),
        ("/api/streams?after=a%20b", "a stream id is"),
    ];
    for (path, sentence) in table {
        let (status, said) = answer(server.ask(by_user(path)).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert!(said.as_str().is_some_and(|said| said.starts_with(sentence)), "{path}: {said}");
    }
    assert_eq!(server.listed("").await, [""; 0], "what was refused is not registered");
}

#[tokio::test]
async fn bad_bodies_are_answered_with_a_sentence() {
    let server = Server::start(&[]);
    let table = [
        ("/api/stream/x/events", "", "the body is JSON"),
        ("/api/stream/x/events", "{\"type\":", "the body is JSON"),
        ("/api/stream/x/events", "{\"data\":1}", "the body is JSON"),
        ("/api/stream/x/events", "{\"type\":\"\"}", "`type` must not be empty"),
        ("/api/stream/x/events", "{\"type\":\"token\",\"terminal\":true}", "the `type` of a terminal event"),
        ("/api/stream/a%20b/events", "{\"type\":\"token\"}", "a stream id is"),
        ("/api/jobs", "[1", "the body is JSON"),
        ("/api/jobs", "{\"n\":-1}", "the body is JSON"),
        ("/api/jobs", "{\"rate\":-1}", "`rate` is"),
        ("/api/jobs", "{\"n\":9999999999}", "`n` is"),
    ];
    for (path, body, sentence) in table {
        let (status, said) = server.post(path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert!(said.as_str().is_some_and(|said| said.starts_with(sentence)), "{path} {body}: {said}");
    }
    assert_eq!(server.delete("/api/stream/a%20b").await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_owner_s_limit_is_answered_with_429() {
    let server = Server::start(&["--max-streams-per-user", "1"]);
    let first = server.get("/api/stream/one?n=1&rate=0&end=never").await;
    assert_eq!(first.status(), StatusCode::OK);
    for path in ["/api/stream/two?n=1", "/api/stream?n=1"] {
        let second = server.get(path).await;
        assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS, "{path}");
        assert!(second.headers().contains_key("retry-after"));
    }
    let other = get("/api/stream/two?n=1&rate=0").header("x-user-id", "bob").body(Full::default()).unwrap();
    assert_eq!(server.send(other).await.status(), StatusCode::OK);
    assert_eq!(server.delete("/api/stream/one").await, StatusCode::ACCEPTED);
    assert_eq!(server.get("/api/stream/two?n=1&rate=0").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_malformed_user_is_nobody() {
    let server = Server::start(&[]);
    for path in ["/api/stream/x", "/api/streams", "/api/stream/x/recover"] {
        let request = Request::get(path).header("host", "test").header("x-user-id", "u".repeat(257));
        let (status, _) = answer(server.send(request.body(Full::default()).unwrap()).await).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[test]
fn bad_options_are_answered_with_a_sentence() {
    let table: &[(&[&str], &str)] = &[
        (&["--bogus", "1"], "there is no option `--bogus`"),
        (&["port"], "there is no option `port`"),
        (&["--heartbeat"], "`--heartbeat` needs a value"),
        (&["--heartbeat", "soon"], "`--heartbeat` is a number of seconds"),
        (&["--stale=-1"], "`--stale` is a number of seconds"),
        (&["--heartbeat", "0"], "these options cannot work: `heartbeat`"),
        (&["--lifetime", "1"], "these options cannot work: `lifetime`"),
        (&["--durability", "forever"], "`--durability` is one of buffered, before-send"),
        (&["--on-disconnect", "cry"], "`--on-disconnect` is one of interrupt, cancel, detach"),
        (&["--on-unavailable", "wait"], "`--on-unavailable` is one of serve, retry, status"),
        (&["--voice", "loud"], "`--voice` is one of named, json, openai, silent"),
        (&["--max-streams-per-user", "0"], "`--max-streams-per-user` is a number, 1 or more"),
        (&["--max-events", "x"], "`--max-events` is a number, 1 or more"),
        (&["--grace", "long"], "`--grace` is a number of seconds"),
        (&["--hook-file", "/dev/null/lines"], "`--hook-file /dev/null/lines` cannot be written"),
        (&["--hook-delay", "-1"], "`--hook-delay` is a number of seconds"),
        (&["--listen", "nowhere"], "`--listen nowhere` does not work"),
        (&["--store", "ftp://x"], "`--store` is memory"),
        (&["--jobs", "/dev/null/jobs"], "the folder for jobs"),
    ];
    for (options, sentence) in table {
        let output = command(options).output().expect("the server runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success(), "{options:?}");
        assert!(said.starts_with(sentence) && said.lines().count() == 1, "{options:?}: {said}");
        assert!(output.stdout.is_empty(), "{options:?}");
    }
}
