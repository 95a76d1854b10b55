//! Without the feature `tracing`, what needs a human is said on standard error, and not more often than a human can read.
#![cfg(not(feature = "tracing"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{process::Command, time::Duration};

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
fn a_guardian_that_was_dropped_is_heard_of() {
    let said = said_by("guardian");
    assert_eq!(said.len(), 1, "once a minute: {said:?}");
    assert!(said[0].contains("no guardian is polled"), "{said:?}");
}
