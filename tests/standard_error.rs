//! Without the feature `tracing`, what needs a human is said on standard error, and not more often than a human can read.
#![cfg(not(feature = "tracing"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{convert::Infallible, process::Command, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use resilient_sse::{Event, MemoryStore, Owner, ResilientSse, StreamId, StreamSpec};

const CHILD: &str = "RESILIENT_SSE_TEST_CHILD";

/// What this test's process says on standard error when it plays the part.
fn said_by(part: &str) -> Vec<String> {
    let this = std::env::current_exe().unwrap();
    let child = Command::new(this).args(["--exact", "child", "--nocapture"]).env(CHILD, part).output().unwrap();
    assert!(child.status.success(), "{child:?}");
    let said = String::from_utf8(child.stderr).unwrap();
    said.lines().filter(|line| line.starts_with("resilient_sse: ")).map(str::to_owned).collect()
}

/// Not a test of its own: the process that the others start.
#[tokio::test]
async fn child() {
    let Ok(part) = std::env::var(CHILD) else { return };
    let failing = |_| async { Err::<(), _>("the database is away") };
    let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().on_end(failing).build().unwrap();
    let guardian = tokio::spawn(guardian);
    tokio::task::yield_now().await;
    if part == "guardian" {
        guardian.abort();
        let _ = guardian.await;
    }
    if part == "astray" {
        let layer = sse.generation().conversation(StreamId::path("/chat/{id}"));
        let answer = |_| async {
            let response = Response::builder().header("content-type", "text/event-stream");
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from_static(b"data: a\n\n"))).unwrap())
        };
        let app = ServiceBuilder::new().layer(layer).service(service_fn(answer));
        for path in ["/chat/a", "/chats/b", "/chats/c"] {
            let response = app.clone().oneshot(Request::post(path).body(()).unwrap()).await.unwrap();
            assert!(response.headers().contains_key("x-stream-id"), "{path}");
        }
    }
    if part == "unnamed" {
        for path in ["/jobs/a/events", "/jobs/b/events"] {
            let response = sse.relay().oneshot(Request::get(path).body(()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 404);
        }
    }
    for n in 0..5 {
        let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new(n.to_string()).unwrap());
        let job = sse.publisher().open(spec).await.unwrap();
        if part == "hook" {
            job.complete(Event::new("done")).await.unwrap();
        }
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while part == "hook" && sse.health().hooks_failed < 5 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_hook_that_fails_is_heard_of() {
    let said = said_by("hook");
    assert_eq!(said.len(), 1, "once a minute: {said:?}");
    assert!(said[0].contains("on_end") && said[0].contains("the database is away"), "{said:?}");
}

#[test]
fn a_template_that_misses_its_route_is_heard_of() {
    // The guardian is dropped at the process's end, while its streams run, and that is said too.
    let mut said = said_by("astray");
    said.retain(|line| !line.contains("no guardian"));
    assert_eq!(said.len(), 1, "once a minute: {said:?}");
    assert!(said[0].contains("no conversation") && said[0].contains("/chats/b"), "{said:?}");
}

#[test]
fn a_relay_that_finds_no_name_is_heard_of() {
    let said = said_by("unnamed");
    assert_eq!(said.len(), 1, "once a minute: {said:?}");
    assert!(said[0].contains("Relay::id") && said[0].contains("/jobs/a/events"), "{said:?}");
}

#[test]
fn a_guardian_that_was_dropped_is_heard_of() {
    let said = said_by("guardian");
    assert_eq!(said.len(), 1, "once a minute: {said:?}");
    assert!(said[0].contains("no guardian is polled"), "{said:?}");
}
