//! A handler that finds its conversation's name in the request's body names it from within.

use std::{convert::Infallible, sync::Arc};

use http::{Request, Response, StatusCode};
use resilient_sse::{Overlap, Rejection, ResilientSseLayer, StreamContext, StreamId, StreamState, test_util::Fault};
use tower::{ServiceBuilder, service_fn, util::BoxCloneService};

use crate::{
    conversations::stage::{SECOND, Stage, endless, post, send, turn},
    support::handlers::{Alive, App, Body, Finish, Script, plain, sse},
};

/// A handler that names the conversation `c` after a moment, then answers as its path says.
fn names(layer: ResilientSseLayer) -> App {
    let inner = service_fn(|request: Request<()>| async move {
        let context = request.extensions().get::<StreamContext>().unwrap().clone();
        tokio::time::sleep(SECOND).await;
        let name = if request.uri().path().ends_with("/bad") { "a b" } else { "c" };
        Ok::<_, Infallible>(match context.conversation(name).await {
            Ok(()) => answer(&context, request.uri().path()).await,
            Err(rejection) => refused(&rejection),
        })
    });
    BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner))
}

fn refused(rejection: &Rejection) -> Response<Body> {
    let sentence: &'static str = Box::leak(rejection.to_string().into_boxed_str());
    plain(rejection.status().as_u16(), "text/plain", sentence)
}

async fn answer(context: &StreamContext, path: &str) -> Response<Body> {
    if path.ends_with("/slow") {
        context.stopped().await;
        std::future::pending::<()>().await;
    }
    if path.ends_with("/plain") {
        return plain(200, "text/plain", "no stream");
    }
    assert_eq!(context.conversation("c").await, Ok(()), "the same name again");
    if context.epoch().is_some() {
        assert_eq!(context.conversation("other").await, Err(Rejection::OtherConversation));
    }
    let events = if path.ends_with("/two") { 2 } else { u64::MAX };
    let script = Script::events(events).then(Finish::Event("completed"));
    sse(script.body(context.id().to_string(), 1, Alive::new(&Arc::default())))
}

async fn begin(app: &App, path: &str) -> tokio::task::JoinHandle<crate::conversations::stage::Asked> {
    let (app, request) = (app.clone(), post(path));
    let asked = tokio::spawn(async move { send(&app, request).await });
    tokio::task::yield_now().await;
    asked
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_registered_where_its_conversation_is_named() {
    let mut stage = Stage::nodes(2);
    let app = names(stage.sse(0).generation());
    let mut old = turn(&stage.chat(1, &endless())).await;
    old.read(1).await;
    let asked = begin(&app, "/two").await;
    stage.advance(SECOND / 2).await;
    assert_eq!(stage.pointer().await, [old.id()], "not yet");
    stage.advance(2 * SECOND).await;
    let asked = asked.await.unwrap();
    assert_eq!(stage.pointer().await, [asked.id()]);
    assert_eq!(stage.stands(&old.id()).await, (StreamState::Cancelled, "replaced".to_owned()));
    let turn = stage.info(&asked.id()).await.unwrap().turn.unwrap();
    assert_eq!((turn.conversation.as_str(), turn.overlap), ("c", Overlap::Replace));
    let named = asked.id();
    let seen = asked.whole().await;
    assert_eq!(seen.names(), ["message", "message", "completed"]);
    assert!(seen.events[1].id.starts_with(&format!("{named}.e")), "its cursor names it");
    drop(old);
    stage.verdict().await;
}

/// A stop, or the next turn, reaches the handler before it has answered.
#[tokio::test(start_paused = true)]
async fn g11_a_handler_that_has_named_its_conversation_can_be_stopped() {
    let mut stage = Stage::nodes(2);
    let app = names(stage.sse(0).generation());
    let asked = begin(&app, "/slow").await;
    stage.advance(2 * SECOND).await;
    assert_eq!(stage.pointer().await.len(), 1);
    assert_eq!(stage.stop(1, "").await, StatusCode::ACCEPTED);
    stage.advance(SECOND).await;
    let asked = asked.await.unwrap();
    assert_eq!(asked.whole().await.names(), ["cancelled"]);
    stage.verdict().await;
}

/// The handler's registration is withdrawn if the handler fails, answers with something else or is dropped.
#[tokio::test(start_paused = true)]
async fn a_turn_that_fails_to_begin_costs_nothing() {
    for (path, left) in [("/plain", false), ("/slow", true)] {
        let mut stage = Stage::nodes(1);
        let mut old = turn(&stage.chat(0, &endless())).await;
        old.read(1).await;
        // The client leaves. On a route that detaches, the handler would go on.
        let layer = stage.sse(0).generation().on_disconnect(resilient_sse::Disconnect::Cancel);
        let asked = begin(&names(layer), path).await;
        stage.advance(2 * SECOND).await;
        if left {
            assert_eq!(stage.pointer().await.len(), 2);
            asked.abort();
        } else {
            assert_eq!(crate::conversations::stage::text(asked.await.unwrap().body).await, "no stream");
        }
        stage.advance(SECOND).await;
        assert_eq!((stage.pointer().await, stage.running().await), (vec![old.id()], vec![old.id()]), "{path}");
        drop(old);
        stage.verdict().await;
    }
}

/// A handler on a route that detaches, which names its conversation and answers a moment later. Its client may leave in
/// between.
fn thinks(layer: ResilientSseLayer) -> App {
    let inner = service_fn(|request: Request<()>| async move {
        let context = request.extensions().get::<StreamContext>().unwrap().clone();
        if let Err(rejection) = context.conversation("c").await {
            return Ok::<_, Infallible>(refused(&rejection));
        }
        tokio::time::sleep(2 * SECOND).await;
        assert!(!context.is_stopped(), "its work goes on");
        if request.uri().path().ends_with("/plain") {
            return Ok(plain(200, "text/plain", "no stream"));
        }
        Ok(answer(&context, "/two").await)
    });
    BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner))
}

/// The client reloads its page before the first token, and finds the whole answer by its conversation's name.
#[tokio::test(start_paused = true)]
async fn g8_a_handler_that_has_named_its_conversation_outlives_its_client() {
    // The same if the client leaves while the registration, or the move of the pointer, is on its way.
    for slow in [None, Some("open"), Some("point")] {
        for path in ["/two", "/plain"] {
            let mut stage = Stage::nodes(2);
            let mut old = turn(&stage.chat(1, &endless())).await;
            old.read(1).await;
            if let Some(operation) = slow {
                stage.hubs[0].store.fail_on(operation, Fault::Delay(SECOND / 4));
            }
            let asked = begin(&thinks(stage.sse(0).generation()), path).await;
            stage.advance(SECOND / 8).await;
            asked.abort();
            stage.hubs[0].store.heal();
            stage.advance(SECOND).await;
            let pointer = stage.pointer().await;
            assert_eq!((pointer.len(), &pointer[1]), (2, &old.id()), "{slow:?}");
            let resume = stage.sse(1).resume().conversation(StreamId::path("/chat/{id}/stream"));
            let resumed = tower::ServiceExt::oneshot(resume, Request::get("/chat/c/stream").body(()).unwrap());
            let resumed = tokio::spawn(resumed);
            stage.advance(3 * SECOND).await;
            let resumed = resumed.await.unwrap().unwrap();
            if path == "/plain" {
                // The answer was no event stream: the turn is withdrawn, and the turn before it goes on.
                assert_eq!(resumed.headers()["x-stream-id"], *old.id());
                assert_eq!((stage.pointer().await, stage.running().await), (vec![old.id()], vec![old.id()]));
                drop(resumed);
            } else {
                assert_eq!(resumed.headers()["x-stream-id"], *pointer[0], "{slow:?}");
                let seen = resilient_sse::test_util::collect(resumed.into_body()).await;
                assert_eq!(seen.names(), ["message", "message", "completed"], "{slow:?}");
                assert_eq!(stage.stands(&old.id()).await.1, "replaced", "{slow:?}");
            }
            drop(old);
            stage.verdict().await;
        }
    }
}

/// A handler that has named nothing yet is dropped when its client leaves.
#[tokio::test(start_paused = true)]
async fn a_handler_that_has_not_named_its_conversation_is_dropped_with_its_client() {
    let stage = Stage::nodes(1);
    let waits = crate::support::handlers::Waiting::default();
    let pending = waits.behind(stage.sse(0).generation());
    let left = tokio::time::timeout(SECOND, turn(&pending)).await;
    assert!(left.is_err());
    assert!(waits.is_dropped() && waits.is_stopped());
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_the_status_to_answer_with() {
    let mut stage = Stage::nodes(1);
    let app = names(stage.sse(0).generation().overlap(Overlap::Refuse));
    let bad = begin(&app, "/bad").await;
    stage.advance(2 * SECOND).await;
    assert_eq!(bad.await.unwrap().status, StatusCode::BAD_REQUEST);
    let mut old = turn(&stage.chat(0, &endless())).await;
    old.read(1).await;
    let asked = begin(&app, "/two").await;
    stage.advance(2 * SECOND).await;
    let asked = asked.await.unwrap();
    assert_eq!(asked.status, StatusCode::CONFLICT);
    assert!(crate::conversations::stage::text(asked.body).await.contains(&old.id()));
    assert_eq!(stage.running().await, [old.id()]);
    drop(old);
    stage.verdict().await;
}

/// On a route whose requests name their streams, the stream is already registered.
#[tokio::test(start_paused = true)]
async fn a_named_stream_is_made_a_turn() {
    let mut stage = Stage::nodes(2);
    let mut old = turn(&stage.chat(1, &endless())).await;
    old.read(1).await;
    let app = names(stage.sse(0).generation().id(StreamId::path("/streams/{id}")));
    let asked = begin(&app, "/streams/two").await;
    stage.advance(3 * SECOND).await;
    let asked = asked.await.unwrap();
    assert_eq!(stage.pointer().await, ["two"]);
    assert_eq!(stage.stands(&old.id()).await.1, "replaced");
    assert_eq!(stage.info("two").await.unwrap().turn.unwrap().conversation.as_str(), "c");
    assert_eq!(asked.whole().await.names().last(), Some(&"completed"));
    drop(old);
    stage.verdict().await;
}

/// While the store is away the handler goes on, and nothing is recorded.
#[tokio::test(start_paused = true)]
async fn g7_naming_a_conversation_while_the_store_is_away() {
    let mut stage = Stage::nodes(1);
    stage.hubs[0].store.fail(Fault::Refuse);
    let asked = begin(&names(stage.sse(0).generation()), "/two").await;
    stage.advance(3 * SECOND).await;
    let asked = asked.await.unwrap();
    assert_eq!((asked.status, &asked.headers["x-stream-recorded"]), (StatusCode::OK, &"false".parse().unwrap()));
    assert_eq!(asked.whole().await.names().len(), 3);
    stage.hubs[0].store.heal();
    stage.verdict().await;
}

/// A refused handler that asks again is refused again. Its 409 names the running stream, as the library's own does.
#[tokio::test(start_paused = true)]
async fn a_refusal_holds_until_the_running_one_has_ended() {
    for by_path in [false, true] {
        let mut stage = Stage::nodes(2);
        let mut old = turn(&stage.chat(0, &endless())).await;
        old.read(1).await;
        let inner = service_fn(|request: Request<()>| async move {
            let context = request.extensions().get::<StreamContext>().unwrap().clone();
            let first = context.conversation("c").await.unwrap_err();
            assert_eq!(context.conversation("c").await, Err(first.clone()));
            Ok::<_, Infallible>(refused(&first))
        });
        let layer = stage.sse(1).generation().overlap(Overlap::Refuse);
        let layer = if by_path { layer.id(StreamId::path("/streams/{id}")) } else { layer };
        let app = BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner));
        let asked = send(&app, post("/streams/s")).await;
        assert_eq!((asked.status, asked.id()), (StatusCode::CONFLICT, old.id()), "{by_path}");
        stage.advance(SECOND).await;
        assert_eq!((stage.running().await, stage.pointer().await), (vec![old.id()], vec![old.id()]));
        drop(old);
        stage.verdict().await;
    }
}

/// The store registers the stream and does not move the pointer. The route's setting decides what happens to the turn.
#[tokio::test(start_paused = true)]
async fn g7_a_route_says_what_is_done_where_the_pointer_is_away() {
    use resilient_sse::OnUnavailable;
    for (unavailable, overlap, expected) in [
        (OnUnavailable::Serve, Overlap::Replace, StatusCode::OK),
        (OnUnavailable::Serve, Overlap::Refuse, StatusCode::SERVICE_UNAVAILABLE),
        (OnUnavailable::Retry, Overlap::Replace, StatusCode::SERVICE_UNAVAILABLE),
        (OnUnavailable::Status, Overlap::Replace, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let mut stage = Stage::nodes(1);
        stage.hubs[0].store.fail_on("point", Fault::Refuse);
        let layer = stage.sse(0).generation().id(StreamId::path("/streams/{id}"));
        let asked = begin(&names(layer.on_unavailable(unavailable).overlap(overlap)), "/streams/two").await;
        stage.advance(3 * SECOND).await;
        let asked = asked.await.unwrap();
        assert_eq!(asked.status, expected, "{unavailable:?}, {overlap:?}");
        drop(asked);
        stage.verdict().await;
    }
}

/// A client that leaves while the turn is named leaves no pointer to a stream that is gone.
#[tokio::test(start_paused = true)]
async fn g6_a_client_that_leaves_while_the_turn_is_named_leaves_nothing() {
    let mut stage = Stage::nodes(2);
    let mut old = turn(&stage.chat(1, &endless())).await;
    old.read(1).await;
    let asked = begin(&names(stage.sse(0).layer().id(StreamId::path("/streams/{id}"))), "/streams/slow").await;
    stage.advance(SECOND / 2).await;
    stage.hubs[0].store.fail_on("open", Fault::Hang);
    stage.advance(SECOND).await;
    asked.abort();
    stage.advance(SECOND).await;
    assert_eq!((stage.running().await, stage.pointer().await), (vec![old.id()], vec![old.id()]));
    drop(old);
    stage.verdict().await;
}

/// A handler panics right after it has named its conversation; its client has left while that was under way.
#[tokio::test(start_paused = true)]
async fn g11_a_handler_that_panics_once_it_is_named_leaves_nothing() {
    let mut stage = Stage::nodes(1);
    let mut old = turn(&stage.chat(0, &endless())).await;
    old.read(1).await;
    let inner = service_fn(|request: Request<()>| async move {
        let context = request.extensions().get::<StreamContext>().unwrap().clone();
        context.conversation("c").await.unwrap();
        let fails = true;
        assert!(!fails, "the handler panics");
        Ok::<_, Infallible>(plain(200, "text/plain", "no stream"))
    });
    let app: App = BoxCloneService::new(ServiceBuilder::new().layer(stage.sse(0).generation()).service(inner));
    stage.hubs[0].store.fail_on("open", Fault::Delay(SECOND / 4));
    let asked = begin(&app, "/two").await;
    stage.advance(SECOND / 8).await;
    asked.abort();
    stage.hubs[0].store.heal();
    stage.advance(60 * SECOND).await;
    assert_eq!((stage.pointer().await, stage.running().await), (vec![old.id()], vec![old.id()]));
    drop(old);
    stage.verdict().await;
}

/// On a route whose request names its stream, a slow handler names the conversation: nothing is registered twice.
#[tokio::test(start_paused = true)]
async fn g4_a_stream_that_names_its_conversation_stays_registered() {
    let mut stage = Stage::nodes(1);
    let inner = service_fn(|request: Request<()>| async move {
        let context = request.extensions().get::<StreamContext>().unwrap().clone();
        context.conversation("c").await.unwrap();
        tokio::time::sleep(10 * SECOND).await;
        Ok::<_, Infallible>(answer(&context, "/two").await)
    });
    let layer = stage.sse(0).generation().id(StreamId::path("/chat/{id}"));
    let app: App = BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner));
    let asked = begin(&app, "/chat/a").await;
    stage.advance(SECOND / 4).await;
    assert!(stage.info("a").await.is_some());
    let calls = |operation| stage.hubs[0].store.calls(operation);
    assert_eq!((calls("withdraw"), calls("reopen")), (0, 0));
    asked.abort();
}
