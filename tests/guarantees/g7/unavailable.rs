//! The store does not answer when a client asks for a stream.

use std::time::Duration;

use http::{StatusCode, request::Parts};
use resilient_sse::{
    Identity, OnUnavailable, Owner, ResilientSseLayer, StreamId, StreamKey,
    test_util::{Fault, collect},
};
use tokio::time::Instant;

use crate::support::rig::{Rig, Script, millis};

const OPEN_LIMIT: Duration = Duration::from_secs(2);
const POLICIES: [OnUnavailable; 3] = [OnUnavailable::Serve, OnUnavailable::Retry, OnUnavailable::Status];

fn rig(batched: bool, policy: OnUnavailable) -> Rig {
    let script = Script { events: 3, ..Script::default() };
    Rig::with(batched, script, |hub| hub.on_unavailable(policy), |layer| layer)
}

/// Without a cursor the route's setting decides the response, at most after `open`'s time limit.
#[tokio::test(start_paused = true)]
async fn g7_a_request_without_a_cursor_gets_what_the_route_says() {
    for fault in [Fault::Hang, Fault::Refuse, Fault::LoseReply] {
        for policy in POLICIES {
            let rig = rig(true, policy);
            rig.store.fail(fault);
            let start = Instant::now();
            let answer = rig.get("a", None).await;
            assert!(start.elapsed() <= OPEN_LIMIT + millis(5), "{:?}", start.elapsed());
            let (status, calls) = (answer.status(), rig.calls());
            let marked = answer.headers().get("x-stream-recorded").is_some();
            let seen = collect(answer.into_body()).await;
            assert_eq!(seen.ended, policy != OnUnavailable::Retry, "a body that has nothing to say breaks");
            match policy {
                OnUnavailable::Serve => {
                    assert_eq!((status, calls, marked), (StatusCode::OK, 1, true));
                    assert_eq!(seen.names(), ["message", "message", "message", "completed"]);
                    assert!(seen.events.iter().all(|event| event.id.is_empty()), "nothing is recorded");
                }
                OnUnavailable::Retry => {
                    assert_eq!((status, calls, seen.events.len()), (StatusCode::OK, 0, 0));
                    assert!(seen.retry.is_some());
                }
                OnUnavailable::Status => assert_eq!((status, calls), (StatusCode::SERVICE_UNAVAILABLE, 0)),
                other => panic!("what does {other:?} do?"),
            }
        }
    }
}

/// A client with a cursor is told to come again, since only the store has the events that it asks for.
#[tokio::test(start_paused = true)]
async fn g7_a_request_with_a_cursor_is_to_come_again() {
    for fault in [Fault::Hang, Fault::Refuse] {
        for policy in POLICIES {
            for cursor in ["e1700000000000-2", "$", "unreadable"] {
                let rig = rig(true, policy);
                rig.store.fail(fault);
                let answer = rig.get("a", Some(cursor)).await;
                assert_eq!((answer.status(), rig.calls()), (StatusCode::OK, 0));
                let seen = collect(answer.into_body()).await;
                assert_eq!((seen.events.len(), seen.ended), (0, false), "{seen:?}");
                assert!(seen.retry.is_some());
            }
        }
    }
}

/// An `open` whose reply was lost leaves no lasting registration.
#[tokio::test(start_paused = true)]
async fn g4_an_open_that_was_not_heard_of_is_taken_back() {
    for batched in [false, true] {
        let rig = rig(batched, OnUnavailable::Retry);
        rig.store.fail_on("open", Fault::LoseReply);
        assert_eq!(rig.get("a", None).await.status(), StatusCode::OK);
        rig.store.heal();
        tokio::time::sleep(millis(10)).await;
        let seen = collect(rig.get("a", None).await.into_body()).await;
        assert_eq!(seen.names(), ["message", "message", "message", "completed"]);
        assert_eq!(rig.calls(), 1);
    }
}

/// While the breaker is open no request waits for the two seconds. Afterwards everything is as before.
#[tokio::test(start_paused = true)]
async fn g7_only_the_first_request_waits_for_a_store_that_is_gone() {
    let rig = rig(true, OnUnavailable::Serve);
    rig.store.fail(Fault::Hang);
    rig.get("a", None).await;
    for id in ["b", "c", "d"] {
        let start = Instant::now();
        let answer = rig.get(id, None).await;
        assert_eq!(answer.headers()["x-stream-recorded"], "false");
        assert!(start.elapsed() <= millis(5), "{:?}", start.elapsed());
    }
    rig.store.heal();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let answer = rig.get("e", None).await;
    assert!(answer.headers().get("x-stream-recorded").is_none());
    let seen = collect(answer.into_body()).await;
    assert!(seen.events.iter().filter(|event| event.name == "message").all(|event| !event.id.is_empty()));
}

/// A registration that was never sent is not withdrawn, which spares a store that refuses writes one request each.
#[tokio::test(start_paused = true)]
async fn g7_what_was_not_asked_of_the_store_is_not_withdrawn() {
    let rig = rig(false, OnUnavailable::Status);
    rig.store.fail_on("open", Fault::Refuse);
    for id in ["a", "b"] {
        rig.get(id, None).await;
    }
    assert_eq!(rig.sse.health().breaker, "open");
    let withdrawn = rig.store.calls("withdraw");
    assert!(withdrawn > 0, "what was sent may have been done");
    for id in ["c", "d", "e"] {
        assert_eq!(rig.get(id, None).await.status(), 503);
    }
    assert_eq!(rig.store.calls("withdraw"), withdrawn);
}

/// Work whose answer would certainly be discarded does not begin, even where the name is made up after the handler.
#[tokio::test(start_paused = true)]
async fn g7_no_work_is_begun_for_an_answer_that_is_refused() {
    for batched in [false, true] {
        for policy in POLICIES {
            let script = Script { events: 3, ..Script::default() };
            let unnamed = |layer: ResilientSseLayer| layer.id(|_: &Parts| Identity::generate());
            let rig = Rig::with(batched, script, |hub| hub.on_unavailable(policy), unnamed);
            rig.store.fail(Fault::Hang);
            // The outage is not known yet, and the breaker opens.
            rig.get("a", None).await;
            assert_eq!((rig.calls(), rig.sse.health().breaker), (1, "open"));
            for _ in 0..5 {
                let answer = rig.get("a", None).await;
                assert_eq!(answer.status() == StatusCode::OK, policy != OnUnavailable::Status);
            }
            let calls = if policy == OnUnavailable::Serve { 6 } else { 1 };
            assert_eq!(rig.calls(), calls, "{policy:?}");
        }
    }
}

/// Reads, lists and sweeps have limits of their own: a store that is slow for those is still waited for.
#[tokio::test(start_paused = true)]
async fn g7_only_the_writes_of_the_hot_path_open_the_breaker() {
    for fault in [Fault::Hang, Fault::Refuse] {
        let rig = rig(true, OnUnavailable::Serve);
        let owner = Owner::ANONYMOUS;
        let key = StreamKey::new(owner.clone(), StreamId::new("x").unwrap());
        for operation in ["read", "info", "list", "active_count", "stale", "delete", "due", "hook_done", "announce"] {
            rig.store.fail_on(operation, fault);
        }
        for _ in 0..3 {
            assert!(rig.sse.streams().list(&owner).await.is_err());
            assert!(rig.sse.registry().stream(&key).await.is_err());
            assert!(rig.sse.registry().active_count().await.is_err());
            assert!(rig.sse.registry().stale_streams(millis(1)).await.is_err());
            assert!(rig.sse.completions().events(&key, None, 1).await.is_err());
        }
        // The same for sweeps.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(rig.sse.health().breaker, "closed", "{fault:?}");
        let answer = rig.get("a", None).await;
        assert!(answer.headers().get("x-stream-recorded").is_none(), "{fault:?}");
    }
}

/// Beats that fail open no breaker, and do not put off its probe.
#[tokio::test(start_paused = true)]
async fn g7_beats_that_fail_cost_no_stream_its_record() {
    let rig = rig(true, OnUnavailable::Serve);
    rig.store.fail_on("beat", Fault::Refuse);
    for n in 0..24 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let answer = rig.get(&format!("s{n}"), None).await;
        assert!(answer.headers().get("x-stream-recorded").is_none(), "stream {n}");
    }
    // The same once another request has opened the breaker.
    rig.store.fail(Fault::Hang);
    rig.get("lost", None).await;
    assert_eq!(rig.sse.health().breaker, "open");
    rig.store.heal();
    rig.store.fail_on("beat", Fault::Refuse);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let answer = rig.get("again", None).await;
    assert!(answer.headers().get("x-stream-recorded").is_none(), "the probe is due after a second");
}
