//! Each turn is a new stream, and a turn that fails to begin changes nothing.

use std::sync::{Arc, Mutex};

use http::{StatusCode, request::Parts};
use resilient_sse::{Disconnect, EndedStream, Identity, Overlap, StreamId, StreamState};

use crate::{
    conversations::stage::{Asked, SECOND, Stage, endless, post, send, turn},
    support::handlers::{Call, Finish, Handler, Script, Waiting, app, plain},
};

#[tokio::test(start_paused = true)]
async fn two_turns_within_five_minutes_give_two_answers() {
    let mut stage = Stage::nodes(2);
    let handler = Handler::events(3);
    let (here, there) = (stage.chat(0, &handler), stage.chat(1, &handler));
    let first = turn(&here).await;
    let first = (first.id(), first.whole().await);
    stage.advance(60 * SECOND).await;
    let second = turn(&there).await;
    let second = (second.id(), second.whole().await);
    assert_ne!(first.0, second.0);
    assert_eq!(first.1.data()[0], format!("ada/{}#1:1", first.0));
    assert_eq!(second.1.data()[0], format!("ada/{}#2:1", second.0));
    assert!(first.1.ended && second.1.ended);
    assert_eq!(handler.calls(), 2);
    assert_eq!(stage.stands(&first.0).await, (StreamState::Completed, String::new()), "it had ended by then");
    assert_eq!(stage.pointer().await, [second.0]);
    stage.verdict().await;
}

/// The handler knows its stream before it answers: it is registered, and the pointer is moved.
#[tokio::test(start_paused = true)]
async fn a_turn_is_registered_before_its_handler_runs() {
    let stage = Stage::nodes(1);
    let store = stage.store.clone();
    let handler = Handler::new(move |call: &Call| {
        let context = call.context.as_ref().unwrap();
        assert!(context.epoch().is_some() && context.is_recorded() == Some(true));
        let pointer = futures_util::FutureExt::now_or_never(resilient_sse::Store::pointer(
            &store,
            crate::conversations::stage::key("c"),
        ));
        assert_eq!(pointer.unwrap().unwrap().unwrap().stream, *context.id());
        call.stream(&Script::events(1))
    });
    let asked = turn(&stage.chat(0, &handler)).await;
    assert_eq!(asked.status, StatusCode::OK);
    asked.whole().await;
    assert_eq!(handler.calls(), 1);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_fails_to_begin_leaves_the_running_one_alone() {
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
        let mut stage = Stage::nodes(2);
        let mut old = turn(&stage.chat_with(0, &endless(), |layer| layer.on_disconnect(disconnect))).await;
        old.read(2).await;
        let fails = Handler::new(|_: &Call| plain(500, "text/plain", "no"));
        let failed = turn(&stage.chat_with(1, &fails, |layer| layer.on_disconnect(disconnect))).await;
        assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
        stage.advance(SECOND).await;
        assert_eq!(stage.pointer().await, [old.id()]);
        assert_eq!(stage.running().await, [old.id()]);
        let resumed = stage.resume(1, None).await;
        assert_eq!(resumed.headers()["x-stream-id"], *old.id());

        // The client leaves before the handler has answered. On a route that detaches the work goes on.
        if disconnect != Disconnect::DETACH {
            let waits = Waiting::default();
            let layer = stage.sse(1).generation().on_disconnect(disconnect).conversation(StreamId::path("/chat/{id}"));
            let pending = waits.behind(layer);
            let left = tokio::time::timeout(SECOND, turn(&pending)).await;
            assert!(left.is_err());
            stage.advance(SECOND).await;
            assert!(waits.is_dropped());
            assert_eq!(stage.pointer().await, [old.id()]);
            assert_eq!(stage.running().await, [old.id()]);
        }
        old.read(2).await;
        drop((old, resumed));
        stage.verdict().await;
    }
}

/// Of several turns that begin at once each may fail, in any order, and none is forgotten.
#[tokio::test(start_paused = true)]
async fn turns_that_begin_at_once_fail_in_any_order() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for starts in [false, true] {
            let mut stage = Stage::nodes(1);
            let mut old = turn(&stage.chat(0, &endless())).await;
            old.read(1).await;
            let layer = || stage.sse(0).layer().conversation(StreamId::path("/chat/{id}"));
            let mut pending: Vec<_> = (0..3)
                .map(|_| {
                    Some(tokio::spawn({
                        let app = Waiting::default().behind(layer());
                        async move { drop(turn(&app).await) }
                    }))
                })
                .collect();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!(stage.pointer().await.len(), 4);
            // The last one begins, or fails too.
            let newest = if starts { Some(turn(&stage.chat(0, &endless())).await) } else { None };
            for at in order {
                let pending = pending[at].take().unwrap();
                pending.abort();
                // A turn that has given way is already over.
                assert!(starts || pending.await.unwrap_err().is_cancelled());
            }
            stage.advance(SECOND).await;
            let left = newest.as_ref().map_or(old.id(), Asked::id);
            let (pointer, running) = (stage.pointer().await, stage.running().await);
            assert_eq!(pointer, running, "{order:?}, {starts}");
            assert_eq!(running, [left], "{order:?}, {starts}");
            drop((old, newest));
            stage.verdict().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_or_a_cursor_joins_a_stream_and_never_touches_the_pointer() {
    let mut stage = Stage::nodes(2);
    let handler = Handler::events(20);
    let keyed = |node| {
        stage.chat_with(node, &handler, |layer| {
            layer.id(StreamId::header(http::HeaderName::from_static("idempotency-key")).or_generate())
        })
    };
    let (here, there) = (keyed(0), keyed(1));
    let with_key = |name: &str| {
        let mut request = post("/chat/c");
        request.headers_mut().insert("idempotency-key", name.parse().unwrap());
        request
    };
    let mut first = send(&here, with_key("k1")).await;
    let seen = first.read(2).await;
    assert_eq!((first.id(), stage.pointer().await), ("k1".to_owned(), vec!["k1".to_owned()]));
    let made_up = turn(&here).await;
    let named = made_up.id();
    let seen_made_up = {
        let mut made_up = made_up;
        made_up.read(3).await
    };
    stage.advance(SECOND).await;
    assert_eq!(stage.stands("k1").await, (StreamState::Cancelled, "replaced".to_owned()));

    // The same key, to an ended stream, and cursors, on the other node.
    let joined = send(&there, with_key("k1")).await;
    assert_eq!(joined.id(), "k1");
    assert_eq!(joined.whole().await.names().last(), Some(&"cancelled"));
    let mut request = with_key("k1");
    request.headers_mut().insert("last-event-id", seen.last_id().parse().unwrap());
    assert_eq!(send(&there, request).await.id(), "k1");
    let mut request = post("/chat/c");
    request.headers_mut().insert("last-event-id", seen_made_up.last_id().parse().unwrap());
    let joined = send(&there, request).await;
    assert_eq!(joined.id(), named);
    let rest = joined.whole().await;
    assert_eq!(rest.data().len(), 20 - 3 + 1);
    assert_eq!(handler.calls(), 2);
    assert_eq!(stage.pointer().await, [named]);
    stage.verdict().await;
}

/// An interrupted stream that a cursor runs again is no new turn, and is renewed if the pointer names it.
#[tokio::test(start_paused = true)]
async fn a_stream_that_runs_again_is_no_new_turn() {
    let mut stage = Stage::nodes(1);
    let handler = endless();
    let chat = stage.chat_with(0, &handler, |layer| layer.on_disconnect(Disconnect::Interrupt).grace(SECOND));
    let (mut first, mut seen) = (turn(&chat).await, Vec::new());
    for _ in 0..2 {
        let named = first.id();
        seen.push((named, first.read(2).await.last_id().to_owned()));
        drop(first);
        stage.advance(3 * SECOND).await;
        first = turn(&chat).await;
    }
    stage.advance(SECOND).await;
    assert_eq!(stage.stands(&seen[0].0).await, (StreamState::Cancelled, "replaced".to_owned()), "it might run again");
    drop(first);
    stage.advance(3 * SECOND).await;
    let newest = stage.pointer().await;
    let (old, cursor) = (&seen[1].0, &seen[1].1);
    assert_eq!(stage.stands(old).await.0, StreamState::Cancelled);
    let mut request = post("/chat/c");
    request.headers_mut().insert("last-event-id", cursor.parse().unwrap());
    assert_eq!(send(&chat, request).await.id(), *old);
    assert_eq!(stage.pointer().await, newest);
    stage.verdict().await;
}

/// The cursor of a stream that is gone asks for that stream's work, which such a route may do again. It is no new
/// question, so it does not stop the answer to the newest one.
#[tokio::test(start_paused = true)]
async fn a_cursor_of_a_stream_that_is_gone_replaces_nothing() {
    for (overlap, keyed) in [(Overlap::Replace, false), (Overlap::Replace, true), (Overlap::Allow, false)] {
        let mut stage = Stage::with(2, |hub| hub.recovery_window(5 * SECOND));
        let handler = endless();
        let chat = |node| {
            stage.chat_with(node, &handler, |layer| {
                let layer = layer.on_disconnect(Disconnect::Interrupt).grace(SECOND).overlap(overlap);
                let key = StreamId::header(http::HeaderName::from_static("idempotency-key"));
                if keyed { layer.id(key.or_generate()) } else { layer }
            })
        };
        let ask = |cursor: Option<&str>| {
            let mut request = post("/chat/c");
            if keyed {
                request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
            }
            if let Some(cursor) = cursor {
                request.headers_mut().insert("last-event-id", cursor.parse().unwrap());
            }
            request
        };
        let (here, there) = (chat(0), chat(1));
        let mut old = send(&here, ask(None)).await;
        let cursor = old.read(2).await.last_id().to_owned();
        assert_eq!(stage.stop(0, "").await, StatusCode::ACCEPTED);
        drop(old);
        stage.advance(40 * SECOND).await;
        assert_eq!(stage.infos().await.len(), 0, "it is gone");
        let mut new = turn(&there).await;
        new.read(2).await;
        let refused = send(&here, ask(Some(&cursor))).await;
        assert_eq!((refused.status, refused.id()), (StatusCode::CONFLICT, new.id()), "{overlap:?}, {keyed}");
        stage.advance(SECOND).await;
        assert_eq!((stage.running().await, stage.pointer().await), (vec![new.id()], vec![new.id()]));
        drop(new);
        stage.advance(3 * SECOND).await;
        // If no turn runs, the work is done again, and the client is told of the gap.
        let mut again = send(&here, ask(Some(&cursor))).await;
        assert_eq!(again.status, StatusCode::OK, "{overlap:?}, {keyed}");
        assert_eq!(again.read(2).await.names()[0], "gap");
        assert_eq!(stage.pointer().await[0], again.id());
        drop(again);
        stage.verdict().await;
    }
}

/// The end can be fetched for the recovery window. Then the pointer is gone with its stream.
#[tokio::test(start_paused = true)]
async fn a_pointer_goes_with_its_stream() {
    for finish in [Finish::Event("completed"), Finish::Eof, Finish::Error, Finish::Panic] {
        let mut stage = Stage::nodes(1);
        let chat = stage.chat(0, &Handler::plays(Script::events(2).then(finish)));
        turn(&chat).await.whole().await;
        stage.advance(290 * SECOND).await;
        assert_eq!(stage.pointer().await.len(), 1);
        stage.advance(11 * SECOND).await;
        assert_eq!(stage.pointer().await.len(), 0);
        stage.verdict().await;
    }
}

/// A pointer lives as long as its stream runs, far beyond its first TTL.
#[tokio::test(start_paused = true)]
async fn a_pointer_lives_as_long_as_its_stream_runs() {
    let mut stage = Stage::with(2, |hub| hub.lifetime(40 * SECOND).recovery_window(5 * SECOND));
    let script = Script::events(u64::MAX).every(SECOND);
    let chat = stage.chat_with(0, &Handler::plays(script), |layer| {
        layer.on_disconnect(Disconnect::Detach { at_most: 3600 * SECOND })
    });
    let mut asked = turn(&chat).await;
    for _ in 0..40 {
        stage.advance(10 * SECOND).await;
        assert_eq!(stage.pointer().await, [asked.id()]);
    }
    assert_eq!(asked.read(1).await.data().len(), 1);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_name_is_400_and_no_name_is_no_conversation() {
    let stage = Stage::nodes(1);
    let handler = Handler::events(1);
    let chat = stage.chat(0, &handler);
    for path in ["/chat/a%20b", "/chat/%ff", &format!("/chat/{}", "x".repeat(129))] {
        let asked = send(&chat, post(path)).await;
        assert_eq!(asked.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(
            crate::conversations::stage::text(asked.body).await.starts_with("a conversation is named like a stream")
        );
    }
    assert_eq!(handler.calls(), 0);
    let asked = send(&chat, post("/other")).await;
    assert_eq!(asked.whole().await.data().len(), 2);
    assert_eq!(stage.pointer().await.len(), 0);
    stage.verdict().await;
}

/// 64 turns may wait for their handlers at a time.
#[tokio::test(start_paused = true)]
async fn turns_that_have_not_begun_are_bounded() {
    let stage = Stage::nodes(1);
    let pending = Waiting::default().behind(stage.sse(0).layer().conversation(StreamId::path("/chat/{id}")));
    let waiting: Vec<_> = (0..70)
        .map(|_| {
            tokio::spawn({
                let pending = pending.clone();
                async move { turn(&pending).await.status }
            })
        })
        .collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.pointer().await.len(), 65);
    let (mut refused, mut pending) = (0, Vec::new());
    for task in waiting {
        if task.is_finished() {
            assert_eq!(task.await.unwrap(), StatusCode::CONFLICT);
            refused += 1;
        } else {
            pending.push(task);
        }
    }
    assert_eq!(refused, 5);
    pending.iter().for_each(tokio::task::JoinHandle::abort);
    for task in pending {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert_eq!(stage.pointer().await.len(), 0);
    stage.verdict().await;
}

/// The hook of a turn knows its conversation, and what either identifier keeps with the stream.
#[tokio::test(start_paused = true)]
async fn a_hook_knows_the_conversation_of_its_turn() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let hears = Arc::clone(&heard);
    let mut stage = Stage::with(1, move |hub| {
        let hears = Arc::clone(&hears);
        hub.on_end(move |ended: EndedStream| {
            let turn = ended.turn().map(|turn| turn.conversation.to_string());
            hears.lock().unwrap().push(format!("{turn:?} {} {:?}", ended.kind(), ended.metadata()));
            std::future::ready(())
        })
    });
    let in_conversation = |_: &Parts| Identity::parse("c").kind("chat").metadata("plan", "free").metadata("from", "c");
    let key = |_: &Parts| Identity::generate().metadata("plan", "paid");
    let named = |_: &Parts| Identity::parse("key-1").kind("own");
    let handler = Handler::plays(Script::events(1).then(Finish::Event("completed")));
    let layer = || stage.sse(0).generation();
    let apps = [
        app(layer().conversation(in_conversation), &handler),
        app(layer().id(key).conversation(in_conversation), &handler),
        app(layer().id(named).conversation(in_conversation), &handler),
        app(layer(), &handler),
    ];
    for app in &apps {
        turn(app).await.whole().await;
        stage.step().await;
    }
    assert_eq!(
        *heard.lock().unwrap(),
        [
            r#"Some("c") chat [("plan", "free"), ("from", "c")]"#,
            r#"Some("c") chat [("from", "c"), ("plan", "paid")]"#,
            r#"Some("c") own [("plan", "free"), ("from", "c")]"#,
            r#"None generation []"#,
        ]
    );
    stage.verdict().await;
}
