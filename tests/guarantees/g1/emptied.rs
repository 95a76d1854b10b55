//! G1: a client returns to a store that was emptied a moment ago, before a beat has told its node.

use std::time::Duration;

use http::{Request, StatusCode};
use resilient_sse::{
    Disconnect, Event, Owner, ResilientSseLayer, StreamId, StreamSpec, StreamState,
    test_util::{Fault, collect},
};
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::{
    client::Client,
    stage::Stage,
    support::handlers::{Handler, Script, app},
};

const SECOND: Duration = Duration::from_secs(1);

struct Scene {
    stage: Stage,
    handler: Handler,
    /// On the first node, where the work runs.
    client: Client,
    /// On the second node, with a cursor.
    other: Client,
    gate: watch::Sender<u64>,
}

/// A stream that has sent two of five events to clients on two nodes. One of the clients has just left.
async fn scene(layer: impl Fn(ResilientSseLayer) -> ResilientSseLayer, named: bool) -> Scene {
    let mut stage = Stage::nodes(2, |hub| hub);
    stage.advance(SECOND * 12).await;
    let (script, gate) = Script::events(5).gated();
    let handler = Handler::plays(script);
    let apps = [0, 1].map(|node: usize| app(layer(stage.hubs[node].sse.layer()), &handler));
    let client = stage.client(&apps[0], "/a");
    let other = stage.client(&apps[1], "/a");
    let (mut client, mut other) = if named { (client, other) } else { (client.unnamed(), other.unnamed()) };
    client.connect().await;
    gate.send_replace(2);
    client.read(2).await;
    if named {
        other.connect().await;
        other.read(2).await;
        other.leave();
    } else {
        // Only the stream's own client knows its name.
        std::mem::swap(&mut client, &mut other);
        client.app = apps[0].clone();
        other.leave();
        other.app = apps[1].clone();
    }
    Scene { stage, handler, client, other, gate }
}

async fn comes_again(scene: &mut Scene) {
    assert_eq!(scene.other.connect().await, StatusCode::OK, "not 404: the stream may be about to register again");
    assert_eq!(scene.other.read_to_end().await, 0);
    assert_eq!(scene.handler.calls(), 1, "and it is not run anew");
}

#[tokio::test(start_paused = true)]
async fn g1_a_cursor_that_comes_before_any_beat_is_not_lost() {
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
        for fails in [false, true] {
            let route = |layer: ResilientSseLayer| layer.id(StreamId::path("/{id}")).on_disconnect(disconnect);
            let mut scene = scene(route, true).await;
            scene.stage.forget();
            if fails {
                scene.stage.store.fail_on("beat", Fault::Refuse);
                comes_again(&mut scene).await;
                scene.stage.store.heal();
            }
            comes_again(&mut scene).await;
            scene.stage.advance(SECOND * 11).await;
            assert_eq!(scene.stage.state(&scene.client).await, Some(StreamState::Active), "it is registered again");
            scene.other.connect().await;
            scene.gate.send_replace(6);
            scene.client.read_to_end().await;
            scene.client.has_all(5).await;
            scene.other.read_to_end().await;
            scene.other.has_all(5).await;
            assert_eq!(scene.handler.calls(), 1);
            scene.stage.verdict().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g1_nor_is_the_cursor_of_a_stream_whose_name_was_made_up() {
    let mut scene = scene(|layer| layer.on_disconnect(Disconnect::DETACH), false).await;
    scene.stage.forget();
    comes_again(&mut scene).await;
    scene.stage.advance(SECOND * 11).await;
    scene.other.connect().await;
    scene.gate.send_replace(6);
    scene.other.read_to_end().await;
    scene.other.has_all(5).await;
    scene.stage.verdict().await;
}

/// A store that has lost nothing confirms that once, and then the stream counts as gone, as usual.
#[tokio::test(start_paused = true)]
async fn g1_what_the_same_store_does_not_hold_is_gone() {
    let stage = Stage::new();
    for (disconnect, status) in [(Disconnect::DETACH, StatusCode::NOT_FOUND), (Disconnect::Interrupt, StatusCode::OK)] {
        let handler = Handler::events(1);
        let layer = stage.sse().layer().id(StreamId::path("/{id}")).on_disconnect(disconnect);
        let asked = stage.store.calls("beat");
        let request = Request::get("/gone").header("last-event-id", "e1699999999999-7").body(()).unwrap();
        let response = app(layer, &handler).oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(stage.store.calls("beat"), asked + 1);
        if status == StatusCode::OK {
            assert_eq!(collect(response.into_body()).await.names(), ["gap", "restart", "message", "completed"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g1_a_relay_asks_too() {
    let mut stage = Stage::nodes(2, |hub| hub);
    let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("job").unwrap());
    let mut job = stage.hubs[0].sse.publisher().open(spec).await.unwrap();
    let first = job.send(Event::new("one")).await.unwrap();
    stage.advance(SECOND * 12).await;
    let relay = stage.hubs[1].sse.relay().id(StreamId::path("/{id}"));
    let ask = async |cursor: &str| {
        let request = Request::get("/job").header("last-event-id", cursor).body(()).unwrap();
        relay.clone().oneshot(request).await.unwrap()
    };
    stage.forget();
    stage.store.fail_on("beat", Fault::Refuse);
    assert_eq!(ask(&first.to_string()).await.status(), StatusCode::OK, "the store does not say");
    stage.store.heal();
    let response = ask(&first.to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let follower = tokio::spawn(collect(response.into_body()));
    stage.advance(SECOND * 11).await;
    job.complete(Event::new("done").named("completed")).await.unwrap();
    assert_eq!(follower.await.unwrap().names(), ["completed"]);
    stage.advance(SECOND * 40).await;
    stage.hubs[1].sse.registry().delete(&key(StreamId::new("job").unwrap())).await.unwrap();
    assert_eq!(ask(&first.to_string()).await.status(), StatusCode::NOT_FOUND);
}

/// A client without a cursor is not told to come again, but the node itself knows whether it runs the work.
#[tokio::test(start_paused = true)]
async fn g4_a_node_does_not_run_twice_what_it_runs_where_the_store_was_emptied() {
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
        let route = |layer: ResilientSseLayer| layer.id(StreamId::path("/{id}")).on_disconnect(disconnect);
        let mut scene = scene(route, true).await;
        scene.stage.forget();
        let mut fresh = scene.stage.client(&scene.client.app, "/a");
        assert_eq!(fresh.connect().await, StatusCode::OK);
        assert_eq!(scene.handler.calls(), 1, "{disconnect:?}: the work is done twice");
        scene.gate.send_replace(6);
        scene.client.read_to_end().await;
        scene.client.has_all(5).await;
        fresh.read_to_end().await;
        assert_eq!(fresh.witness.data.last(), scene.client.witness.data.last());
        assert_eq!(scene.handler.calls(), 1);
        scene.stage.verdict().await;
    }
}

fn key(id: StreamId) -> resilient_sse::StreamKey {
    resilient_sse::StreamKey::new(Owner::ANONYMOUS, id)
}
