//! Without the feature `tracing`, the library writes alerts to standard error, and each kind at most once a minute.
#![cfg(not(feature = "tracing"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{convert::Infallible, process::Command, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use resilient_sse::{Event, JobStatus, MemoryStore, Owner, ResilientSse, StreamId, StreamSpec};

const CHILD: &str = "RESILIENT_SSE_TEST_CHILD";

/// Runs a scenario of [`child`] in a process of its own. Returns the library's lines on its standard error.
fn alerts_of(scenario: &str) -> Vec<String> {
    let this = std::env::current_exe().unwrap();
    let child = Command::new(this).args(["--exact", "child", "--nocapture"]).env(CHILD, scenario).output().unwrap();
    assert!(child.status.success(), "{child:?}");
    let stderr = String::from_utf8(child.stderr).unwrap();
    stderr.lines().filter(|line| line.starts_with("resilient_sse: ")).map(str::to_owned).collect()
}

/// Not a test: the other tests start it in a process of its own, and name the scenario in the environment.
#[tokio::test]
async fn child() {
    let Ok(scenario) = std::env::var(CHILD) else { return };
    let failing = |_| async { Err::<(), _>("the database is away") };
    let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().on_end(failing).build().unwrap();
    let guardian = tokio::spawn(guardian);
    tokio::task::yield_now().await;
    if scenario == "guardian" {
        guardian.abort();
        let _ = guardian.await;
    }
    if scenario == "no_conversation" {
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
    if scenario == "no_name" {
        for path in ["/jobs/a/events", "/jobs/b/events"] {
            let response = sse.relay().oneshot(Request::get(path).body(()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 404);
        }
    }
    if scenario == "no_match" {
        let answer = |_| async {
            let response = Response::builder().header("content-type", "text/event-stream");
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from_static(b"data: a\n\n"))).unwrap())
        };
        let layer = |template| sse.layer().id(StreamId::path(template));
        let app = ServiceBuilder::new().layer(layer("/a/{id}")).layer(layer("/b/{id}")).service(service_fn(answer));
        for (path, recorded) in [("/c/1", false), ("/c/2", false), ("/b/1", true), ("/a/1", true)] {
            let response = app.clone().oneshot(Request::get(path).body(()).unwrap()).await.unwrap();
            let headers = response.headers();
            assert_eq!(headers.contains_key("x-stream-id"), recorded, "{path}");
            assert_eq!(headers.contains_key("x-stream-recorded"), !recorded, "{path}");
        }
        return;
    }
    if scenario == "probe" {
        let failing = |_| async { Err::<JobStatus, _>(std::io::Error::other("the queue is away")) };
        let builder = ResilientSse::builder(MemoryStore::new()).anonymous().drain_limit(Duration::from_secs(1));
        let (sse, guardian) = builder.job_probe(failing).build().unwrap();
        let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("export-1").unwrap());
        let _job = sse.publisher().open(spec).await.unwrap();
        guardian.with_graceful_shutdown(std::future::ready(())).await;
        return;
    }
    if scenario == "no_owner" {
        let (sse, _guardian) = ResilientSse::builder(MemoryStore::new()).build().unwrap();
        for _ in 0..2 {
            let response = sse.recover().oneshot(Request::get("/a").body(()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 401);
        }
        return;
    }
    for n in 0..5 {
        let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new(n.to_string()).unwrap());
        let job = sse.publisher().open(spec).await.unwrap();
        if scenario == "hook" {
            job.complete(Event::new("done")).await.unwrap();
        }
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while scenario == "hook" && sse.health().hooks_failed < 5 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_hook_that_fails_is_heard_of() {
    let alerts = alerts_of("hook");
    assert_eq!(alerts.len(), 1, "once a minute: {alerts:?}");
    assert!(alerts[0].contains("on_end") && alerts[0].contains("the database is away"), "{alerts:?}");
}

#[test]
fn a_template_that_misses_its_route_is_heard_of() {
    // At the process's end the guardian is dropped while its streams run, which is another alert.
    let mut alerts = alerts_of("no_conversation");
    alerts.retain(|line| !line.contains("no guardian"));
    assert_eq!(alerts.len(), 1, "once a minute: {alerts:?}");
    assert!(alerts[0].contains("no conversation") && alerts[0].contains("/chats/b"), "{alerts:?}");
}

#[test]
fn a_relay_that_finds_no_name_is_heard_of() {
    let alerts = alerts_of("no_name");
    assert_eq!(alerts.len(), 1, "once a minute: {alerts:?}");
    assert!(
        alerts[0].contains("Relay::id") && alerts[0].contains("service: relay") && alerts[0].contains("/jobs/a/events"),
        "{alerts:?}"
    );
}

/// A stream that another layer of the stack protects is recorded, and no reason for an alert.
#[test]
fn a_stream_that_no_layer_records_is_heard_of() {
    let alerts = alerts_of("no_match");
    assert_eq!(alerts.len(), 1, "once a minute: {alerts:?}");
    assert!(alerts[0].contains("is not recorded") && alerts[0].contains("/c/1"), "{alerts:?}");
}

#[test]
fn a_probe_that_fails_is_heard_of() {
    let alerts = alerts_of("probe");
    assert_eq!(alerts.len(), 1, "once a minute: {alerts:?}");
    assert!(alerts[0].contains("export-1") && alerts[0].contains("the queue is away"), "{alerts:?}");
}

#[test]
fn a_missing_owner_is_heard_of() {
    let alerts = alerts_of("no_owner");
    assert_eq!(alerts.len(), 1, "once a minute: {alerts:?}");
    assert!(alerts[0].contains("the authentication"), "{alerts:?}");
}

#[test]
fn a_guardian_that_was_dropped_is_heard_of() {
    let alerts = alerts_of("guardian");
    assert_eq!(alerts.len(), 1, "once a minute: {alerts:?}");
    assert!(alerts[0].contains("no guardian is polled"), "{alerts:?}");
}
