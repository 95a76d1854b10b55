//! G3: every way in which a body ends, in every voice.

use http::StatusCode;
use resilient_sse::{Classify, Ends, ResilientSseLayer, StreamId, StreamState, Voice};

use crate::{
    stage::Stage,
    support::handlers::{Finish, Handler, Script, app},
};

const VOICES: [Voice; 4] = [Voice::Named, Voice::Json, Voice::OpenAi, Voice::Silent];

/// Returns the voice's text for an ending that the library supplies; `None` if the voice has none.
fn words(voice: Voice, state: &str, reason: &str) -> Option<(String, serde_json::Value)> {
    use serde_json::json;
    match voice {
        Voice::Named => Some((state.to_owned(), json!({ "reason": reason }))),
        Voice::Json => Some(("message".to_owned(), json!({ "type": state, "reason": reason }))),
        Voice::OpenAi if state == "failed" => {
            let error = json!({ "message": "the stream failed", "type": "stream_error", "code": reason });
            Some(("message".to_owned(), json!({ "error": error })))
        }
        Voice::OpenAi | Voice::Silent => None,
        other => panic!("how does {other:?} word it?"),
    }
}

/// Reads a stream of three events with this ending, replays it twice, and reconnects once more.
async fn ends(
    route: impl Fn(ResilientSseLayer) -> ResilientSseLayer,
    finish: Finish,
    state: &str,
    reason: Option<&str>,
) {
    for voice in VOICES {
        let stage = Stage::nodes(1, |hub| hub.max_event_bytes(1000));
        let handler = Handler::plays(Script::events(3).then(finish.clone()));
        let layer = route(stage.sse().generation()).id(StreamId::path("/chat/{id}")).voice(voice);
        let app = app(layer, &handler);
        let mut live = stage.client(&app, "/chat/a").voice(voice);
        let mut cut = stage.client(&app, "/chat/a").voice(voice);
        live.connect().await;
        live.read(2).await;
        cut.cut(2).await;
        live.read_to_end().await;
        cut.finish().await;
        let info = stage.sse().registry().stream(live.key()).await.unwrap().unwrap();
        let ended = info.ended.unwrap();
        assert_eq!((info.state.as_str(), ended.ending.reason.as_deref()), (state, reason), "{finish:?} {voice:?}");
        let told = match reason {
            None => {
                assert!(ended.ending.event.is_some());
                4
            }
            Some(reason) => match words(voice, state, reason) {
                None => 3,
                Some((name, data)) => {
                    assert_eq!(*live.witness.names.last().unwrap(), name);
                    let told: serde_json::Value = serde_json::from_str(live.witness.data.last().unwrap()).unwrap();
                    assert_eq!(told, data, "{voice:?}");
                    4
                }
            },
        };
        assert_eq!(live.witness.data.len(), told, "{finish:?} {voice:?} {:?}", live.witness.data);
        assert_eq!(cut.witness.data, live.witness.data);
        // The stream is finished and all is delivered. That holds without a word for the end too, or the client would
        // reconnect for ever.
        assert_eq!(live.connect().await, StatusCode::NO_CONTENT, "{finish:?} {voice:?}");
        assert_eq!(cut.connect().await, StatusCode::NO_CONTENT);
        assert_eq!((handler.calls(), handler.alive()), (1, 0));
        assert_eq!(stage.sse().health().ended[state], 1);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g3_own_terminal_events_by_name() {
    ends(|layer| layer, Finish::Event("completed"), "completed", None).await;
    ends(|layer| layer, Finish::Event("failed"), "failed", None).await;
}

#[tokio::test(start_paused = true)]
async fn g3_own_terminal_events_by_type_and_data() {
    ends(|layer| layer, Finish::Raw("data: {\"type\":\"failed\"}\n\n"), "failed", None).await;
    ends(|layer| layer.classify(Ends::openai_chat()), Finish::Raw("data: [DONE]\n\n"), "completed", None).await;
    let stop = Finish::Raw("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    ends(|layer| layer.classify(Ends::anthropic()), stop, "completed", None).await;
}

#[tokio::test(start_paused = true)]
async fn g3_eof_is_completed() {
    ends(|layer| layer, Finish::Eof, "completed", Some("eof")).await;
}

#[tokio::test(start_paused = true)]
async fn g3_eof_of_a_format_with_a_mandatory_end_is_failed() {
    ends(|layer| layer.classify(Ends::openai_chat()), Finish::Eof, "failed", Some("eof")).await;
}

#[tokio::test(start_paused = true)]
async fn g3_an_error_is_failed() {
    ends(|layer| layer, Finish::Error, "failed", Some("error")).await;
}

#[tokio::test(start_paused = true)]
async fn g3_a_panic_is_failed() {
    ends(|layer| layer, Finish::Panic, "failed", Some("panic")).await;
}

#[tokio::test(start_paused = true)]
async fn g3_an_event_too_large_is_failed() {
    ends(|layer| layer, Finish::Large(1001), "failed", Some("event_too_large")).await;
}

#[tokio::test(start_paused = true)]
async fn g3_a_classifier_that_panics_ends_nothing() {
    struct Panics;
    impl Classify for Panics {
        fn classify(&self, _: &resilient_sse::wire::EventView<'_>) -> Option<resilient_sse::Outcome> {
            panic!("the classifier panics, as the test wants it")
        }
    }
    let stage = Stage::new();
    let handler = Handler::plays(Script::events(3).then(Finish::Eof));
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")).classify(Panics), &handler);
    let mut client = stage.client(&app, "/chat/a");
    assert_eq!(client.finish().await, 4);
    assert_eq!(*client.witness.names.last().unwrap(), "completed");
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g3_the_eof_of_a_feed_is_an_interruption() {
    let stage = Stage::new();
    let handler = Handler::plays(Script::events(3).then(Finish::Eof));
    let app = app(stage.sse().feed().id(StreamId::path("/feed/{id}")), &handler);
    let mut client = stage.client(&app, "/feed/a").endless();
    for run in 1..=3 {
        assert_eq!(client.finish().await, 3);
        assert_eq!((client.witness.ended, handler.calls()), (None, run));
        assert_eq!(stage.state(&client).await, Some(StreamState::Interrupted));
    }
    assert_eq!((client.witness.restarts, client.witness.gaps), (2, 0));
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g3_what_comes_after_the_terminal_event_is_not_part_of_the_stream() {
    let stage = Stage::new();
    let finish = Finish::Raw("event: completed\ndata: -/a#1:end\n\ndata: -/a#1:5\n\nevent: failed\ndata: no\n\n");
    let handler = Handler::plays(Script::events(3).then(finish));
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.finish().await;
    client.has_all(3).await;
    assert_eq!(handler.alive(), 0);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_an_end_of_a_later_run_stands_behind_a_restart() {
    // The second run makes nothing but its end. A client of the first run must not take that end for its own.
    let stage = Stage::new();
    let handler = Handler::new(|call| call.stream(&Script::events(if call.run == 1 { 3 } else { 0 })));
    let app = app(stage.sse().layer().id(StreamId::path("/chat/{id}")), &handler);
    let mut first = stage.client(&app, "/chat/a");
    let mut second = stage.client(&app, "/chat/a");
    first.connect().await;
    second.connect().await;
    first.read(2).await;
    second.read(2).await;
    second.leave();
    first.leave();
    first.finish().await;
    assert_eq!(handler.calls(), 2);
    second.finish().await;
    for client in [&first, &second] {
        assert_eq!(client.witness.names, ["message", "message", "restart", "completed"]);
    }
    stage.verdict().await;
}
