//! The effect of a new turn on the running one.

use http::StatusCode;
use resilient_sse::{Disconnect, Overlap, StreamId, StreamState, test_util::Fault};

use crate::{
    conversations::stage::{Asked, SECOND, Stage, ada, endless, post, send, text, turn},
    support::handlers::{Call, Handler, Script, Waiting, plain},
};

#[tokio::test(start_paused = true)]
async fn replace_stops_the_old_one_once_the_new_one_has_started() {
    for there in [0, 1] {
        let mut stage = Stage::nodes(2);
        let mut old = turn(&stage.chat(0, &endless())).await;
        old.read(2).await;
        // The handler of the new turn is slow.
        let waits = Waiting::default();
        let slow = waits.behind(stage.sse(there).generation().conversation(StreamId::path("/chat/{id}")));
        let slow = tokio::spawn(async move { drop(turn(&slow).await) });
        stage.advance(5 * SECOND).await;
        old.read(2).await;
        assert_eq!(stage.stands(&old.id()).await.0, StreamState::Active, "the new one has not started");
        let handler = endless();
        let mut new = turn(&stage.chat(there, &handler)).await;
        new.read(1).await;
        stage.advance(SECOND).await;
        assert_eq!(stage.stands(&old.id()).await, (StreamState::Cancelled, "replaced".to_owned()));
        assert_eq!((stage.running().await, stage.pointer().await), (vec![new.id()], vec![new.id()]));
        let last = old.whole().await;
        assert_eq!(last.names().last(), Some(&"cancelled"));
        assert!(last.ended && last.events.last().unwrap().data.contains("replaced"), "{last:?}");
        assert!(waits.is_stopped(), "one that had not begun gives way, too");
        slow.abort();
        new.read(2).await;
        drop(new);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn refuse_lets_the_running_one_run() {
    for there in [0, 1] {
        let mut stage = Stage::nodes(2);
        let refusing =
            |node: usize, handler: &Handler| stage.chat_with(node, handler, |layer| layer.overlap(Overlap::Refuse));
        let handler = endless();
        let (first, second) = (refusing(0, &handler), refusing(there, &handler));
        let mut old = turn(&first).await;
        let refused = turn(&second).await;
        assert_eq!((refused.status, refused.id()), (StatusCode::CONFLICT, old.id()));
        assert!(text(refused.body).await.contains(&old.id()));
        assert_eq!(handler.calls(), 1, "no handler runs for it");
        assert_eq!(stage.running().await, [old.id()]);
        old.read(2).await;
        // The turn ends, and a turn that has begun meanwhile does not block the next one.
        assert_eq!(stage.stop(there, "").await, StatusCode::ACCEPTED);
        let mut new = turn(&second).await;
        assert_eq!(new.status, StatusCode::OK);
        new.read(2).await;
        stage.advance(SECOND).await;
        assert_eq!(stage.pointer().await, [new.id()]);
        assert_eq!(stage.stands(&old.id()).await.1, "stopped");
        drop((old, new));
        stage.verdict().await;
    }
}

/// Under `Refuse`, a turn of a route that interrupts is interrupted. `handler` answers the next requests.
async fn interrupted(stage: &mut Stage) -> (String, String) {
    let chat = refusing(stage, 0, &endless());
    let mut old = turn(&chat).await;
    let seen = old.read(1).await.last_id().to_owned();
    let named = old.id();
    drop(old);
    stage.advance(3 * SECOND).await;
    assert_eq!(stage.stands(&named).await.0, StreamState::Interrupted);
    (named, seen)
}

fn refusing(stage: &Stage, node: usize, handler: &Handler) -> crate::support::handlers::App {
    let with = |layer: resilient_sse::ResilientSseLayer| {
        layer.overlap(Overlap::Refuse).on_disconnect(Disconnect::Interrupt).grace(SECOND)
    };
    stage.chat_with(node, handler, with)
}

fn again(cursor: &str) -> http::Request<()> {
    let mut request = post("/chat/c");
    request.headers_mut().insert("last-event-id", cursor.parse().unwrap());
    request
}

/// An interrupted turn might run again, so it ends, but only once the new turn has begun.
#[tokio::test(start_paused = true)]
async fn refuse_ends_an_interrupted_one_once_the_new_one_has_begun() {
    let mut stage = Stage::nodes(2);
    let (named, _) = interrupted(&mut stage).await;
    let new = turn(&refusing(&stage, 1, &endless())).await;
    assert_eq!(new.status, StatusCode::OK);
    stage.advance(SECOND).await;
    assert_eq!(stage.stands(&named).await, (StreamState::Cancelled, "replaced".to_owned()));
    assert_eq!((stage.pointer().await, stage.running().await), (vec![new.id()], vec![new.id()]));
    drop(new);
    stage.verdict().await;
}

/// A turn that fails to begin changes nothing: the interrupted turn is run again by its client.
#[tokio::test(start_paused = true)]
async fn a_refusing_turn_that_fails_to_begin_leaves_the_interrupted_one() {
    let mut stage = Stage::nodes(2);
    let (named, seen) = interrupted(&mut stage).await;
    let fails = Handler::new(|_: &Call| plain(500, "text/plain", "no"));
    assert_eq!(turn(&refusing(&stage, 1, &fails)).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    stage.advance(SECOND).await;
    assert_eq!((stage.stands(&named).await.0, stage.pointer().await), (StreamState::Interrupted, vec![named.clone()]));
    let mut old = send(&refusing(&stage, 0, &endless()), again(&seen)).await;
    assert_eq!((old.status, old.id()), (StatusCode::OK, named.clone()));
    old.read(3).await;
    assert_eq!((stage.pointer().await, stage.running().await), (vec![named.clone()], vec![named]));
    drop(old);
    stage.verdict().await;
}

/// The interrupted turn is sent again while a new one has not begun: the new turn was first.
#[tokio::test(start_paused = true)]
async fn an_interrupted_turn_does_not_run_again_beside_one_that_is_about_to_begin() {
    let mut stage = Stage::nodes(2);
    let (named, seen) = interrupted(&mut stage).await;
    let layer = stage.sse(1).generation().overlap(Overlap::Refuse).conversation(StreamId::path("/chat/{id}"));
    let pending = Waiting::default().behind(layer);
    let pending = tokio::spawn(async move { turn(&pending).await.status });
    stage.advance(SECOND).await;
    let handler = endless();
    let refused = send(&refusing(&stage, 0, &handler), again(&seen)).await;
    assert_eq!((refused.status, handler.calls()), (StatusCode::CONFLICT, 0));
    assert_eq!(stage.pointer().await, [refused.id(), named.clone()]);
    assert_eq!(stage.stands(&named).await.0, StreamState::Interrupted);
    assert_eq!(stage.stop(0, "").await, StatusCode::ACCEPTED);
    stage.advance(SECOND).await;
    pending.abort();
    stage.verdict().await;
}

/// The interrupted turn is sent again between the new turn's read of it and the move of the pointer: one sees the
/// other.
#[tokio::test(start_paused = true)]
async fn an_interrupted_turn_that_runs_again_meanwhile_refuses_the_new_one() {
    let mut stage = Stage::nodes(2);
    let (named, seen) = interrupted(&mut stage).await;
    stage.hubs[1].store.fail_on("point", Fault::Delay(SECOND / 4));
    let handler = endless();
    let new = tokio::spawn(turn(&refusing(&stage, 1, &handler)));
    // The first move has found the interrupted turn, and the second move is on its way.
    stage.advance(SECOND * 3 / 8).await;
    assert_eq!(stage.hubs[1].store.calls("point"), 2);
    let mut old = send(&refusing(&stage, 0, &endless()), again(&seen)).await;
    assert_eq!(old.status, StatusCode::OK);
    stage.advance(SECOND).await;
    let refused = new.await.unwrap();
    assert_eq!((refused.status, refused.id(), handler.calls()), (StatusCode::CONFLICT, named.clone(), 0));
    old.read(2).await;
    assert_eq!((stage.pointer().await, stage.running().await), (vec![named.clone()], vec![named]));
    drop(old);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn allow_lets_both_run_and_points_to_the_newest() {
    let mut stage = Stage::nodes(2);
    let handler = endless();
    let allowing = |node| stage.chat_with(node, &handler, |layer| layer.overlap(Overlap::Allow));
    let (mut old, mut new): (Asked, Asked) = (turn(&allowing(0)).await, turn(&allowing(1)).await);
    stage.advance(SECOND).await;
    old.read(2).await;
    new.read(2).await;
    let mut running = stage.running().await;
    running.sort();
    let mut both = vec![old.id(), new.id()];
    both.sort();
    assert_eq!((running, stage.pointer().await), (both, vec![new.id()]));
    let current = stage.sse(0).streams().current(&ada(), &StreamId::new("c").unwrap()).await.unwrap().unwrap();
    assert_eq!(current.key.id.as_str(), new.id());
    drop((old, new));
    stage.verdict().await;
}

/// The store does not take the move. The turn is served and recorded, and the pointer is moved once the store takes it.
#[tokio::test(start_paused = true)]
async fn a_pointer_that_is_away_is_moved_later() {
    let mut stage = Stage::nodes(1);
    let handler = endless();
    let mut old = turn(&stage.chat(0, &handler)).await;
    old.read(1).await;
    stage.hubs[0].store.fail_on("point", Fault::Refuse);
    let mut new = turn(&stage.chat(0, &handler)).await;
    assert_eq!(new.status, StatusCode::OK);
    assert!(!new.headers.contains_key("x-stream-recorded"));
    new.read(3).await;
    assert_eq!(stage.pointer().await, [old.id()]);
    stage.hubs[0].store.heal();
    stage.advance(20 * SECOND).await;
    assert_eq!((stage.pointer().await, stage.running().await), (vec![new.id()], vec![new.id()]));
    drop((old, new));
    stage.verdict().await;
}

/// The store is away altogether: a turn is served unrecorded, as any request is.
#[tokio::test(start_paused = true)]
async fn g7_a_turn_is_served_while_the_store_is_away() {
    let stage = Stage::nodes(1);
    stage.hubs[0].store.fail(Fault::Refuse);
    let asked = turn(&stage.chat(0, &Handler::events(2))).await;
    assert_eq!(asked.headers["x-stream-recorded"], "false");
    assert_eq!(asked.whole().await.data().len(), 3);
    stage.hubs[0].store.heal();
    stage.verdict().await;
}

/// A node that drains begins no turn, and leaves the turn that runs elsewhere alone.
#[tokio::test(start_paused = true)]
async fn g5_a_drain_begins_no_turn() {
    let mut stage = Stage::nodes(2);
    let handler = endless();
    let mut old = turn(&stage.chat(0, &handler)).await;
    old.read(1).await;
    let chat = stage.chat(1, &handler);
    stage.hubs[1].shut_down_on(std::future::ready(()));
    stage.step().await;
    assert_eq!(turn(&chat).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((stage.pointer().await, stage.running().await), (vec![old.id()], vec![old.id()]));
    stage.alive[1] = false;
    drop(old);
    stage.verdict().await;
}

/// A handler whose turn is replaced before it answers is told to stop.
#[tokio::test(start_paused = true)]
async fn g11_a_handler_that_has_not_answered_gives_way() {
    let mut stage = Stage::nodes(1);
    let waits = Waiting::default();
    let slow = waits.behind(stage.sse(0).generation().conversation(StreamId::path("/chat/{id}")));
    let slow = tokio::spawn(async move { turn(&slow).await.whole().await });
    stage.advance(SECOND).await;
    let quick = Handler::new(|call: &Call| call.stream(&Script::events(1)));
    turn(&stage.chat(0, &quick)).await.whole().await;
    stage.advance(SECOND).await;
    assert!(waits.is_stopped() && waits.is_dropped());
    let seen = slow.await.unwrap();
    assert_eq!(seen.names(), ["cancelled"]);
    stage.verdict().await;
}

/// The stream that the turn replaces, or is refused for, takes the owner's last place.
#[tokio::test(start_paused = true)]
async fn a_turn_at_the_owners_limit() {
    for overlap in [Overlap::Replace, Overlap::Refuse, Overlap::Allow] {
        let mut stage = Stage::nodes(2);
        let handler = endless();
        let limited = |node| stage.chat_with(node, &handler, |layer| layer.overlap(overlap).max_streams(1));
        let (first, second) = (limited(0), limited(1));
        let mut old = turn(&first).await;
        old.read(1).await;
        let mut next = turn(&second).await;
        match overlap {
            Overlap::Replace => {
                assert_eq!(next.status, StatusCode::OK);
                next.read(1).await;
                stage.advance(SECOND).await;
                assert_eq!(
                    (stage.running().await, stage.stands(&old.id()).await.1),
                    (vec![next.id()], "replaced".into())
                );
            }
            Overlap::Refuse => assert_eq!((next.status, next.id()), (StatusCode::CONFLICT, old.id())),
            Overlap::Allow => assert_eq!(next.status, StatusCode::TOO_MANY_REQUESTS),
            other => panic!("what does {other:?} do?"),
        }
        let other = crate::conversations::stage::send(&second, crate::conversations::stage::post("/chat/other")).await;
        assert_eq!(other.status, StatusCode::TOO_MANY_REQUESTS, "{overlap:?}: it makes no room");
        drop((old, next));
        stage.verdict().await;
    }
}
