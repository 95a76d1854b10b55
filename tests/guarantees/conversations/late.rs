//! Turns that are interrupted before they begin, and moves of the pointer that arrive late or get lost.

use http::StatusCode;
use resilient_sse::{
    Disconnect, Overlap, Store as _, StreamId, StreamState,
    store::{Expected, Place, Point, Pointed, Renew},
    test_util::Fault,
};

use crate::{
    conversations::stage::{Asked, LIFETIME, SECOND, Stage, endless, key, post, send, turn},
    support::handlers::Waiting,
};

fn with_key(name: &str) -> http::Request<()> {
    let mut request = post("/chat/c");
    request.headers_mut().insert("idempotency-key", name.parse().unwrap());
    request
}

fn keyed() -> impl resilient_sse::Identify {
    StreamId::header(http::HeaderName::from_static("idempotency-key")).or_generate()
}

/// A turn runs on the first node. On the second one, which drains, the next turn `k` of a route that interrupts has not
/// begun.
async fn interrupted_before_it_began() -> (Stage, Asked) {
    let mut stage = Stage::nodes(2);
    let mut old = turn(&stage.chat(0, &endless())).await;
    old.read(1).await;
    let layer = stage.sse(1).generation().on_disconnect(Disconnect::Interrupt).id(keyed());
    let pending = Waiting::default().behind(layer.conversation(StreamId::path("/chat/{id}")));
    let pending = tokio::spawn(async move { send(&pending, with_key("k")).await.status });
    stage.advance(SECOND).await;
    assert_eq!(stage.pointer().await, ["k".to_owned(), old.id()]);
    stage.hubs[1].shut_down_on(std::future::ready(()));
    stage.advance(30 * SECOND).await;
    pending.abort();
    assert_eq!(stage.stands("k").await.0, StreamState::Interrupted);
    assert!(!stage.info("k").await.unwrap().started);
    stage.alive[1] = false;
    (stage, old)
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_interrupted_before_it_began_costs_nothing() {
    let (stage, mut old) = interrupted_before_it_began().await;
    let resumed = stage.resume(0, None).await;
    assert_eq!(resumed.status(), StatusCode::OK);
    assert_eq!(resumed.headers()["x-stream-id"], *old.id());
    assert_eq!(stage.pointer().await, [old.id()]);
    old.read(1).await;
    drop((old, resumed));
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_refused_beside_one_that_runs_behind_an_interrupted_one() {
    let (stage, old) = interrupted_before_it_began().await;
    let refused = turn(&stage.chat_with(0, &endless(), |layer| layer.overlap(Overlap::Refuse))).await;
    assert_eq!((refused.status, refused.id()), (StatusCode::CONFLICT, old.id()));
    assert_eq!(stage.running().await, [old.id()]);
    drop(old);
    stage.verdict().await;
}

/// The key is sent again. The turn begins now, and the turn before it gives way, whether the pointer still names that
/// or not.
#[tokio::test(start_paused = true)]
async fn a_turn_that_begins_only_when_it_runs_again_replaces_the_one_before() {
    for taken_out in [false, true] {
        let (mut stage, old) = interrupted_before_it_began().await;
        if taken_out {
            drop(stage.resume(0, None).await);
        }
        let mut again = send(&stage.chat_with(0, &endless(), |layer| layer.id(keyed())), with_key("k")).await;
        again.read(2).await;
        stage.advance(SECOND).await;
        assert_eq!((stage.running().await, stage.pointer().await), (vec!["k".to_owned()], vec!["k".to_owned()]));
        assert_eq!(stage.stands(&old.id()).await.1, "replaced");
        drop((old, again));
        stage.verdict().await;
    }
}

/// A turn whose move the store did not take gives way to a turn that has begun since: the newest answer always stays.
#[tokio::test(start_paused = true)]
async fn a_late_move_does_not_pass_a_newer_turn() {
    for begins in [false, true] {
        let mut stage = Stage::nodes(2);
        stage.hubs[1].store.fail_on("point", Fault::Refuse);
        let mut old = turn(&stage.chat(1, &endless())).await;
        old.read(2).await;
        stage.advance(SECOND).await;
        assert_eq!(stage.pointer().await.len(), 0);
        let waits = Waiting::default();
        let pending = waits.behind(stage.sse(0).layer().conversation(StreamId::path("/chat/{id}")));
        let pending = tokio::spawn(async move { drop(turn(&pending).await) });
        stage.advance(SECOND).await;
        let mut new = None;
        if begins {
            let mut begun = turn(&stage.chat(0, &endless())).await;
            begun.read(2).await;
            new = Some(begun);
        }
        stage.advance(SECOND).await;
        stage.hubs[1].store.heal();
        stage.advance(20 * SECOND).await;
        pending.abort();
        stage.advance(20 * SECOND).await;
        let left = new.as_ref().map_or(old.id(), Asked::id);
        assert_eq!(stage.running().await, std::slice::from_ref(&left), "{begins}");
        assert_eq!(stage.pointer().await, std::slice::from_ref(&left), "{begins}");
        if begins {
            assert_eq!(stage.stands(&old.id()).await, (StreamState::Cancelled, "replaced".to_owned()));
        }
        drop((old, new));
        stage.verdict().await;
    }
}

/// A turn whose stream has a higher epoch than a newer turn's, because the clocks of their servers differ.
#[tokio::test(start_paused = true)]
async fn epochs_of_different_streams_do_not_say_which_turn_is_newer() {
    let mut stage = Stage::nodes(2);
    // The clocks differ by less than the time until everything expires.
    let far_ahead = 1_700_000_000_000 + 100_000;
    let open = resilient_sse::store::Open { create: true, ..stage.an_open("k") };
    let reopen = resilient_sse::store::Reopen {
        open,
        epoch: far_ahead,
        acknowledged: 0,
        inner_id: None,
        inner_retry: None,
        since: SECOND,
    };
    stage.store.reopen(reopen).await.unwrap();
    stage.store.delete(key("k")).await.unwrap();
    stage.hubs[1].store.fail_on("point", Fault::Refuse);
    let there = stage.chat_with(1, &endless(), |layer| layer.id(keyed()));
    let mut old = send(&there, with_key("k")).await;
    old.read(2).await;
    assert!(stage.info("k").await.unwrap().epoch > far_ahead);
    stage.advance(SECOND).await;
    let mut new = turn(&stage.chat(0, &endless())).await;
    let first = new.read(2).await.data()[0].to_owned();
    stage.hubs[1].store.heal();
    stage.advance(20 * SECOND).await;
    assert_eq!((stage.running().await, stage.pointer().await), (vec![new.id()], vec![new.id()]));
    assert_eq!(stage.stands("k").await, (StreamState::Cancelled, "replaced".to_owned()));
    // A client that has seen the end of the older turn has all of it, whatever its epoch.
    let end = format!("e{}-0", stage.info("k").await.unwrap().epoch + 1);
    let resumed = stage.resume(0, Some(&end)).await;
    assert_eq!(resumed.headers()["x-stream-id"], *new.id());
    assert_eq!(resilient_sse::test_util::cut_after(1, resumed.into_body()).await.data()[0], first);
    drop((old, new));
    stage.verdict().await;
}

/// A read of the pointer finds a key's stream gone, and removes it from the pointer while the key is sent again.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_sent_again_is_not_taken_out_with_its_older_run() {
    let mut stage = Stage::nodes(2);
    let point = Point {
        conversation: key("c"),
        stream: StreamId::new("k").unwrap(),
        place: Place { epoch: 1, since: SECOND },
        expected: Expected::Nothing,
        ttl: 60 * SECOND,
    };
    stage.store.point(point).await.unwrap();
    stage.hubs[1].store.fail_on("unpoint", Fault::Delay(SECOND));
    let resume = stage.sse(1).resume().conversation(StreamId::path("/chat/{id}/stream"));
    let resumed =
        tokio::spawn(tower::ServiceExt::oneshot(resume, http::Request::get("/chat/c/stream").body(()).unwrap()));
    stage.advance(SECOND / 2).await;
    assert_eq!(stage.hubs[1].store.calls("unpoint"), 1);
    let mut asked = send(&stage.chat_with(0, &endless(), |layer| layer.id(keyed())), with_key("k")).await;
    asked.read(1).await;
    stage.advance(SECOND).await;
    assert_eq!(stage.pointer().await, ["k"]);
    assert_eq!(resumed.await.unwrap().unwrap().headers()["x-stream-id"], "k");
    drop(asked);
    stage.verdict().await;
}

/// The store refuses to renew one pointer. The others are renewed by the same request.
#[tokio::test(start_paused = true)]
async fn a_refused_pointer_keeps_no_other_from_being_renewed() {
    let mut stage = Stage::nodes(1);
    let chat = stage.chat(0, &endless());
    let mut all = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let mut asked = send(&chat, post(&format!("/chat/{name}"))).await;
        asked.read(1).await;
        all.push(asked);
    }
    stage.hubs[0].store.refuse_stream(key("b"));
    let before = stage.hubs[0].store.calls("renew");
    stage.advance(70 * SECOND).await;
    let renewals = stage.hubs[0].store.calls("renew") - before;
    // Each beat repeats the refused renewal.
    assert!((1..=3).contains(&renewals), "{renewals} requests");
    stage.advance(LIFETIME).await;
    stage.advance(400 * SECOND).await;
    for name in ["a", "c", "d"] {
        assert!(stage.store.pointer(key(name)).await.unwrap().is_some(), "{name} runs");
    }
    assert!(stage.store.pointer(key("b")).await.unwrap().is_none(), "it was refused");
    stage.hubs[0].store.heal();
    stage.advance(20 * SECOND).await;
    assert!(stage.store.pointer(key("b")).await.unwrap().is_some(), "it is put back");
    drop(all);
    stage.verdict().await;
}

/// A failover loses the move of a turn that runs: the pointer names the one before, or nothing.
#[tokio::test(start_paused = true)]
async fn a_move_that_was_lost_is_made_again() {
    for named_before in [false, true] {
        let mut stage = Stage::nodes(1);
        let chat = stage.chat(0, &endless());
        let mut old = turn(&chat).await;
        let old_began = tokio::time::Instant::now();
        old.read(1).await;
        stage.advance(SECOND).await;
        let mut new = turn(&chat).await;
        new.read(1).await;
        stage.advance(SECOND).await;
        let id = |asked: &Asked| StreamId::new(asked.id()).unwrap();
        stage.store.unpoint(key("c"), id(&new), None).await.unwrap();
        if named_before {
            // A failover restores the pointer with the time of that earlier move.
            let since = old_began.elapsed();
            let epoch = stage.info(&old.id()).await.unwrap().epoch;
            let put_back = Some(Place { epoch, since });
            let renew = Renew { conversation: key("c"), stream: id(&old), ttl: 300 * SECOND, put_back };
            stage.store.renew(vec![renew]).await.unwrap();
        }
        stage.advance(100 * SECOND).await;
        assert_eq!(stage.pointer().await, [new.id()], "{named_before}");
        assert_eq!(stage.resume(0, None).await.headers()["x-stream-id"], *new.id());
        assert_eq!(stage.stop(0, "").await, StatusCode::ACCEPTED);
        drop((old, new));
        stage.verdict().await;
    }
}

/// The store lost everything, and the next turn begins before the running one has registered again.
#[tokio::test(start_paused = true)]
async fn one_turn_runs_on_after_the_store_was_emptied() {
    for overlap in [Overlap::Replace, Overlap::Refuse] {
        let mut stage = Stage::nodes(2);
        let mut old = turn(&stage.chat_with(0, &endless(), |layer| layer.overlap(overlap))).await;
        old.read(2).await;
        stage.advance(12 * SECOND).await;
        stage.hubs[0].store.forget();
        let mut new = turn(&stage.chat_with(1, &endless(), |layer| layer.overlap(overlap))).await;
        assert_eq!(new.status, StatusCode::OK, "{overlap:?}: nobody knows yet that anything was lost");
        new.read(2).await;
        stage.advance(150 * SECOND).await;
        assert_eq!((stage.running().await, stage.pointer().await), (vec![new.id()], vec![new.id()]), "{overlap:?}");
        drop((old, new));
        stage.verdict().await;
    }
}

/// While a stream of the conversation may be about to register again, nobody knows whether a turn runs.
#[tokio::test(start_paused = true)]
async fn a_refusing_turn_comes_again_while_the_store_may_have_forgotten_one() {
    let mut stage = Stage::nodes(2);
    let mut old = turn(&stage.chat_with(0, &endless(), |layer| layer.overlap(Overlap::Refuse))).await;
    old.read(2).await;
    stage.advance(12 * SECOND).await;
    stage.hubs[0].store.forget();
    // The stream's own node is slow to notice.
    stage.alive[0] = false;
    stage.hubs[0].store.fail(Fault::Refuse);
    stage.advance(16 * SECOND).await;
    let handler = endless();
    let refused = turn(&stage.chat_with(1, &handler, |layer| layer.overlap(Overlap::Refuse))).await;
    assert_eq!((refused.status, handler.calls()), (StatusCode::SERVICE_UNAVAILABLE, 0));
    stage.hubs[0].store.heal();
    stage.alive[0] = true;
    drop(old);
    stage.verdict().await;
}

/// The store registers the turn, but does not answer whether another one runs.
#[tokio::test(start_paused = true)]
async fn a_refusing_turn_comes_again_while_the_pointer_is_away() {
    let stage = Stage::nodes(2);
    let mut old = turn(&stage.chat_with(0, &endless(), |layer| layer.overlap(Overlap::Refuse))).await;
    old.read(2).await;
    stage.hubs[1].store.fail_on("point", Fault::Refuse);
    let handler = endless();
    let refused = turn(&stage.chat_with(1, &handler, |layer| layer.overlap(Overlap::Refuse))).await;
    assert_eq!((refused.status, handler.calls()), (StatusCode::SERVICE_UNAVAILABLE, 0));
    assert_eq!((stage.running().await, stage.pointer().await), (vec![old.id()], vec![old.id()]));
    drop(old);
    stage.verdict().await;
}

/// A turn is stopped before its handler answers. The pointer goes back to the turn before at once, and lives as long as
/// that.
#[tokio::test(start_paused = true)]
async fn a_pointer_goes_back_when_a_turn_is_stopped_before_it_began() {
    for node in [0, 1] {
        let mut stage = Stage::with(2, |hub| hub.recovery_window(10 * SECOND));
        let mut old = turn(&stage.chat(0, &endless())).await;
        old.read(1).await;
        let layer = stage.sse(1).generation().id(keyed()).conversation(StreamId::path("/chat/{id}"));
        let pending = Waiting::default().behind(layer);
        let pending = tokio::spawn(async move { send(&pending, with_key("k")).await.status });
        stage.advance(SECOND).await;
        assert_eq!(stage.stop(node, "?stream=k").await, StatusCode::ACCEPTED);
        stage.advance(SECOND).await;
        assert_eq!(stage.pointer().await, [old.id()], "{node}");
        pending.abort();
        stage.advance(15 * SECOND).await;
        assert_eq!(stage.pointer().await, [old.id()], "{node}");
        drop(old);
        stage.verdict().await;
    }
}

/// An unanswered move arrives after a newer turn has begun. The newer turn is not stopped.
#[tokio::test(start_paused = true)]
async fn a_first_move_that_arrives_late_does_not_pass_a_newer_turn() {
    let mut stage = Stage::nodes(2);
    stage.hubs[1].store.fail_on("point", Fault::Refuse);
    let mut old = turn(&stage.chat(1, &endless())).await;
    old.read(2).await;
    stage.advance(SECOND).await;
    let mut new = turn(&stage.chat(0, &endless())).await;
    new.read(2).await;
    // The first move of any turn expects a pointer that names nothing.
    let epoch = stage.info(&old.id()).await.unwrap().epoch;
    let point = Point {
        conversation: key("c"),
        stream: StreamId::new(old.id()).unwrap(),
        place: Place { epoch, since: std::time::Duration::ZERO },
        expected: Expected::Nothing,
        ttl: 60 * SECOND,
    };
    assert!(matches!(stage.store.point(point).await.unwrap(), Pointed::Kept(_)));
    stage.hubs[1].store.heal();
    stage.advance(20 * SECOND).await;
    assert_eq!((stage.running().await, stage.pointer().await), (vec![new.id()], vec![new.id()]));
    drop((old, new));
    stage.verdict().await;
}

/// Each move says what its node believes the pointer names, which makes a late move harmless.
#[tokio::test(start_paused = true)]
async fn a_move_is_meant_for_the_pointer_as_it_was_seen() {
    let mut stage = Stage::nodes(1);
    let mut turns = Vec::new();
    for moves in [1, 3, 5] {
        let mut next = turn(&stage.chat(0, &endless())).await;
        next.read(1).await;
        stage.advance(SECOND).await;
        assert_eq!(stage.hubs[0].store.calls("point"), moves, "the second one once the first has said what it names");
        assert_eq!(stage.pointer().await, [next.id()]);
        turns.push(next);
    }
    drop(turns);
    stage.verdict().await;
}
