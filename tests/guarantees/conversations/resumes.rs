//! What a reloaded page receives.

use http::{Method, Request, StatusCode};
use resilient_sse::{
    Disconnect, StreamId, StreamState, Voice,
    test_util::{Fault, collect, cut_after},
};

use crate::{
    conversations::stage::{SECOND, Stage, endless, turn},
    support::handlers::{Call, Finish, Handler, Script, Waiting, plain},
};

#[tokio::test(start_paused = true)]
async fn g1_a_resume_gives_the_running_stream_from_its_start_or_after_the_cursor() {
    for node in [0, 1] {
        let mut stage = Stage::nodes(2);
        let mut asked = turn(&stage.chat(0, &Handler::events(20))).await;
        let seen = asked.read(5).await;
        let from_start = stage.resume(node, None).await;
        assert_eq!(
            (from_start.status(), &from_start.headers()["x-stream-id"]),
            (StatusCode::OK, &asked.id().parse().unwrap())
        );
        assert_eq!(from_start.headers()["content-type"], "text/event-stream");
        let rest = stage.resume(node, Some(seen.last_id())).await;
        let live = stage.resume(node, Some("$")).await;
        drop(asked);
        stage.advance(SECOND).await;
        let (from_start, rest) = (collect(from_start.into_body()).await, collect(rest.into_body()).await);
        assert_eq!((from_start.data().len(), rest.data().len()), (21, 16));
        assert_eq!(rest.data()[0], from_start.data()[5]);
        assert!(from_start.ended && rest.ended);
        assert_eq!(collect(live.into_body()).await.names().last(), Some(&"completed"));
        // The stream has ended.
        let before_end = &rest.events[rest.events.len() - 2].id;
        assert_eq!(stage.resume(node, None).await.status(), StatusCode::NO_CONTENT);
        assert_eq!(stage.resume(node, Some("$")).await.status(), StatusCode::NO_CONTENT);
        assert_eq!(stage.resume(node, Some(rest.last_id())).await.status(), StatusCode::NO_CONTENT);
        let end = stage.resume(node, Some(before_end)).await;
        assert_eq!(collect(end.into_body()).await.names(), ["completed"]);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_none_runs_there_is_nothing() {
    let stage = Stage::nodes(1);
    assert_eq!(stage.resume(0, None).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(stage.resume(0, Some("e5-6")).await.status(), StatusCode::NO_CONTENT);
    for (method, status) in
        [(Method::HEAD, 204), (Method::OPTIONS, 204), (Method::POST, 405), (Method::DELETE, 405), (Method::PUT, 405)]
    {
        let request = Request::builder().method(&method).uri("/chat/c/stream").body(()).unwrap();
        let response = stage.resume_by(0, request).await;
        assert_eq!(response.status(), status, "{method}");
        if status == 405 || method == Method::OPTIONS {
            assert_eq!(response.headers()["allow"], "GET, HEAD, OPTIONS");
        }
    }
    let bad = stage.resume_by(0, Request::get("/chat/a%20b/stream").body(()).unwrap()).await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
    stage.verdict().await;
}

/// A client with the cursor of an earlier turn.
#[tokio::test(start_paused = true)]
async fn g1_a_cursor_of_an_earlier_turn_is_told_of_a_gap() {
    let mut stage = Stage::nodes(1);
    let handler = endless();
    let chat = stage.chat(0, &handler);
    let mut old = turn(&chat).await;
    let seen = old.read(3).await;
    let mut new = turn(&chat).await;
    let first = new.read(1).await;
    stage.advance(SECOND).await;
    let end = old.whole().await;
    assert_eq!(end.names().last(), Some(&"cancelled"));
    let resumed = stage.resume(0, Some(seen.last_id())).await;
    assert_eq!(resumed.headers()["x-stream-id"], *new.id());
    let resumed = cut_after(2, resumed.into_body()).await;
    assert_eq!(
        (resumed.names()[0], resumed.data()[1]),
        ("gap", first.data()[0]),
        "the rest of the old one is not here"
    );
    let resumed = stage.resume(0, Some(end.last_id())).await;
    assert_eq!(cut_after(1, resumed.into_body()).await.data()[0], first.data()[0], "it has all of the old one");
    drop(new);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_has_not_begun_is_waited_for_and_may_be_withdrawn() {
    let mut stage = Stage::nodes(2);
    let mut old = turn(&stage.chat(0, &endless())).await;
    old.read(1).await;
    let pending = Waiting::default().behind(stage.sse(0).layer().conversation(StreamId::path("/chat/{id}")));
    let pending = tokio::spawn(async move { drop(turn(&pending).await) });
    stage.advance(SECOND).await;
    let resume = stage.sse(1).resume().conversation(StreamId::path("/chat/{id}/stream"));
    let resumed = tokio::spawn(tower::ServiceExt::oneshot(resume, Request::get("/chat/c/stream").body(()).unwrap()));
    stage.advance(SECOND).await;
    assert!(!resumed.is_finished());
    pending.abort();
    stage.advance(SECOND / 2).await;
    let resumed = resumed.await.unwrap().unwrap();
    assert_eq!(resumed.headers()["x-stream-id"], *old.id());
    drop((resumed, old));
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g9_a_foreign_conversation_is_a_missing_one_on_every_verb() {
    let mut stage = Stage::nodes(1);
    let mut asked = turn(&stage.chat(0, &endless())).await;
    let seen = asked.read(2).await;
    for cursor in [None, Some(seen.last_id())] {
        let mut request = Request::get("/chat/c/stream").header("x-user", "mallory").body(()).unwrap();
        if let Some(cursor) = cursor {
            request.headers_mut().insert("last-event-id", cursor.parse().unwrap());
        }
        assert_eq!(stage.resume_by(0, request).await.status(), StatusCode::NO_CONTENT);
    }
    for method in [Method::DELETE, Method::POST] {
        for query in [String::new(), format!("?stream={}", asked.id())] {
            let request = Request::builder().method(&method).uri(format!("/chat/c/stream{query}"));
            let request = request.header("x-user", "mallory").body(()).unwrap();
            let stop = stage.sse(0).stop().conversation(StreamId::path("/chat/{id}/stream"));
            assert_eq!(tower::ServiceExt::oneshot(stop, request).await.unwrap().status(), StatusCode::NOT_FOUND);
        }
    }
    let mallory = resilient_sse::Owner::new("mallory").unwrap();
    let current = stage.sse(0).streams().current(&mallory, &StreamId::new("c").unwrap()).await.unwrap();
    assert_eq!(current, None);
    let other = crate::conversations::stage::send(&stage.chat(0, &Handler::events(1)), {
        let mut request = crate::conversations::stage::post("/chat/c");
        request.headers_mut().insert("x-user", "mallory".parse().unwrap());
        request
    });
    other.await.whole().await;
    stage.advance(SECOND).await;
    assert_eq!(stage.running().await, [asked.id()], "another's turn replaces nothing");
    asked.read(1).await;
    drop(asked);
    stage.verdict().await;
}

/// The hook is asked for each turn, resume and stop. A client that is denied finds nothing.
#[tokio::test(start_paused = true)]
async fn g9_each_is_authorized() {
    let mut stage = Stage::with(1, |hub| {
        hub.authorize(|access| async move {
            assert_eq!(access.conversation.map(|name| name.to_string()), Some("c".to_owned()));
            !access.headers.contains_key("x-denied")
        })
    });
    let denied = |method: Method, uri: &str| {
        Request::builder().method(method).uri(uri).header("x-denied", "1").body(()).unwrap()
    };
    let handler = endless();
    let chat = stage.chat(0, &handler);
    let asked = turn(&chat).await;
    let refused = crate::conversations::stage::send(&chat, denied(Method::POST, "/chat/c")).await;
    assert_eq!((refused.status, handler.calls()), (StatusCode::NOT_FOUND, 1));
    assert_eq!(stage.resume(0, None).await.status(), StatusCode::OK);
    let resumed = stage.resume_by(0, denied(Method::GET, "/chat/c/stream")).await;
    assert_eq!(resumed.status(), StatusCode::NO_CONTENT);
    let stop = stage.sse(0).stop().conversation(StreamId::path("/chat/{id}/stream"));
    let stopped = tower::ServiceExt::oneshot(stop, denied(Method::DELETE, "/chat/c/stream")).await.unwrap();
    assert_eq!(stopped.status(), StatusCode::NOT_FOUND);
    stage.advance(SECOND).await;
    assert_eq!(stage.running().await, [asked.id()]);
    drop(asked);
    stage.verdict().await;
}

/// Resume uses the voice of the route that produces the stream, unless it is told otherwise.
#[tokio::test(start_paused = true)]
async fn a_streams_voice_is_spoken() {
    for (voice, expected) in [
        (Voice::Named, vec!["connected", "failed"]),
        (Voice::Json, vec!["message", "message"]),
        (Voice::OpenAi, vec!["message"]),
        (Voice::Silent, vec![]),
    ] {
        let mut stage = Stage::nodes(2);
        let script = Script::events(5).then(Finish::Error);
        let mut asked = turn(&stage.chat_with(0, &Handler::plays(script), |layer| layer.voice(voice))).await;
        asked.read(1).await;
        let names = |seen: resilient_sse::test_util::Transcript| {
            let own = seen.events.into_iter().filter(|event| !event.data.starts_with("ada/"));
            own.map(|event| event.name).collect::<Vec<_>>()
        };
        let resumed = stage.resume(1, None).await;
        let recover = stage.sse(1).recover().id(StreamId::path("/{id}/recover"));
        let request = Request::get(format!("/{}/recover", asked.id())).header("accept", "text/event-stream");
        let recovered = tower::ServiceExt::oneshot(recover, request.body(()).unwrap()).await.unwrap();
        let relay = stage.sse(1).relay();
        let request = Request::get(format!("/{}", asked.id())).body(()).unwrap();
        let relayed = tower::ServiceExt::oneshot(relay, request).await.unwrap();
        drop(asked);
        stage.advance(SECOND).await;
        assert_eq!(names(collect(resumed.into_body()).await), expected, "{voice:?}");
        assert_eq!(names(collect(recovered.into_body()).await), expected, "{voice:?}, recovered");
        assert_eq!(names(collect(relayed.into_body()).await), expected, "{voice:?}, relayed");
        stage.verdict().await;
    }
    let stage = Stage::nodes(1);
    let asked = turn(&stage.chat_with(0, &Handler::events(3), |layer| layer.voice(Voice::Silent))).await;
    let resume = stage.sse(0).resume().conversation(StreamId::path("/chat/{id}/stream")).voice(Voice::Named);
    let resumed = tower::ServiceExt::oneshot(resume, Request::get("/chat/c/stream").body(()).unwrap()).await.unwrap();
    asked.whole().await;
    assert_eq!(collect(resumed.into_body()).await.events[0].name, "connected");
    stage.verdict().await;
}

/// If the store is away, or may have forgotten the stream, a client with a cursor is told to come again.
#[tokio::test(start_paused = true)]
async fn g7_a_resume_while_the_store_is_away() {
    let mut stage = Stage::nodes(1);
    let mut asked = turn(&stage.chat(0, &endless())).await;
    let seen = asked.read(1).await;
    let event_source = |cursor: bool| {
        let mut request = Request::get("/chat/c/stream").header("accept", "text/event-stream").body(()).unwrap();
        if cursor {
            request.headers_mut().insert("last-event-id", seen.last_id().parse().unwrap());
        }
        request
    };
    stage.hubs[0].store.fail(Fault::Refuse);
    assert_eq!(stage.resume(0, None).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let again = stage.resume_by(0, event_source(true)).await;
    assert_eq!(again.status(), StatusCode::OK, "an EventSource gives up for good otherwise");
    assert!(!collect(again.into_body()).await.ended);
    // The stream runs on this node, so it can be stopped all the same.
    assert_eq!(stage.stop(0, "").await, StatusCode::ACCEPTED);
    stage.hubs[0].store.heal();
    stage.advance(10 * SECOND).await;
    assert_eq!(stage.running().await.len(), 0);
    drop(asked);
    stage.verdict().await;
}

/// After a store has lost everything, the producer registers its stream again, and the pointer with it.
#[tokio::test(start_paused = true)]
async fn g1_a_pointer_comes_back_with_its_stream() {
    let mut stage = Stage::nodes(2);
    let mut asked = turn(&stage.chat(0, &endless())).await;
    let seen = asked.read(2).await;
    stage.advance(12 * SECOND).await;
    stage.hubs[0].store.forget();
    let resumed = stage.resume(1, Some(seen.last_id())).await;
    assert_ne!(resumed.status(), StatusCode::NO_CONTENT, "it may be about to register again");
    stage.advance(25 * SECOND).await;
    assert_eq!(stage.pointer().await, [asked.id()]);
    let resumed = stage.resume(1, Some(seen.last_id())).await;
    assert_eq!(resumed.headers()["x-stream-id"], *asked.id());
    asked.read(1).await;
    drop((asked, resumed));
    stage.verdict().await;
}

/// An interrupted stream does not run. A client with a cursor gets the recorded events, and the body breaks off.
#[tokio::test(start_paused = true)]
async fn g12_an_interrupted_stream_never_looks_finished() {
    let mut stage = Stage::nodes(1);
    let chat = stage.chat_with(0, &endless(), |layer| layer.on_disconnect(Disconnect::Interrupt).grace(SECOND));
    let mut asked = turn(&chat).await;
    let seen = asked.read(2).await;
    drop(asked);
    stage.advance(3 * SECOND).await;
    assert_eq!(stage.resume(0, None).await.status(), StatusCode::NO_CONTENT);
    let resumed = stage.resume(0, Some(seen.last_id())).await;
    assert_eq!(resumed.status(), StatusCode::OK);
    assert!(!collect(resumed.into_body()).await.ended);
    stage.verdict().await;
}

/// A plain answer cannot be resumed.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_stream_leaves_nothing() {
    let stage = Stage::nodes(1);
    let handler = Handler::new(|_: &Call| plain(200, "application/json", "{}"));
    let asked = turn(&stage.chat(0, &handler)).await;
    assert_eq!((asked.status, asked.headers.get("x-stream-id")), (StatusCode::OK, None));
    assert_eq!(stage.pointer().await.len(), 0);
    assert_eq!(stage.resume(0, None).await.status(), StatusCode::NO_CONTENT);
    stage.verdict().await;
}

/// The hook was asked about the conversation of the request, so a stream of another one is not given, whether it runs,
/// has ended or would run again.
#[tokio::test(start_paused = true)]
async fn g9_a_stream_is_not_given_in_another_conversation() {
    let mut stage = Stage::with(2, |hub| {
        hub.authorize(|access| async move { access.conversation.is_some_and(|name| name.as_str() != "secret") })
    });
    let handler = endless();
    let key = || StreamId::header(http::HeaderName::from_static("idempotency-key")).or_generate();
    let layer =
        |layer: resilient_sse::ResilientSseLayer| layer.id(key()).on_disconnect(Disconnect::Interrupt).grace(SECOND);
    let chat = stage.chat_with(0, &handler, layer);
    let there = stage.chat_with(1, &handler, layer);
    let ask = |path: &str, name: &str, value: &str| {
        let mut request = crate::conversations::stage::post(path);
        request.headers_mut().insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        request
    };
    let mut keyed = crate::conversations::stage::send(&chat, ask("/chat/c", "idempotency-key", "k")).await;
    keyed.read(2).await;
    let mut made_up = crate::conversations::stage::send(&chat, crate::conversations::stage::post("/chat/d")).await;
    let cursor = made_up.read(2).await.last_id().to_owned();
    let refused = async |stage: &mut Stage| {
        for app in [&chat, &there] {
            for (name, value) in [("idempotency-key", "k"), ("last-event-id", &cursor)] {
                let asked = crate::conversations::stage::send(app, ask("/chat/other", name, value)).await;
                assert_eq!(asked.status, StatusCode::CONFLICT, "{name}");
                assert!(!asked.headers.contains_key("x-stream-id"));
            }
        }
        stage.advance(SECOND).await;
    };
    refused(&mut stage).await;
    assert_eq!(
        crate::conversations::stage::send(&there, ask("/chat/c", "idempotency-key", "k")).await.status,
        StatusCode::OK
    );
    drop((keyed, made_up));
    stage.advance(5 * SECOND).await;
    assert_eq!(stage.stands("k").await.0, StreamState::Interrupted);
    refused(&mut stage).await;
    assert_eq!(stage.stands("k").await.0, StreamState::Interrupted, "it is not run again");
    assert_eq!(stage.stop(0, "").await, StatusCode::ACCEPTED);
    refused(&mut stage).await;
    assert_eq!(handler.calls(), 2);
    stage.verdict().await;
}
