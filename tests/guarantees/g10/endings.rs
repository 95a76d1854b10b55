//! G10: how the end of a body is read: last blocks without a blank line, unusual end markers, ids without an event.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Request;
use resilient_sse::{
    Classify, Ends, Outcome, Owner, StreamId, StreamKey, StreamState, Voice, test_util::TestHub, wire::EventView,
};

use crate::support::bodies::{Client, Step, Watch, app, chunk, events, request, resuming, send, serving};

const SECOND: Duration = Duration::from_secs(1);

fn path() -> impl resilient_sse::Identify {
    StreamId::path("/s/{id}")
}

/// Returns how the stream of this body ends, and what its client receives.
async fn ended(classify: impl Classify, voice: Voice, body: Vec<Step>) -> (StreamState, Option<String>, String) {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let layer = hub.sse.generation().id(path()).classify(classify).voice(voice);
    let app = app(layer, &watch, body);
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.finish(&mut hub).await;
    let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    let ending = hub.sse.completions().completion(&key).await.unwrap().unwrap().ending;
    // A later client receives the same.
    let mut late = Client::new(send(&app, request("/s/a")).await.into_body());
    late.finish(&mut hub).await;
    assert_eq!(client.data(), late.data());
    (ending.state, ending.reason.map(Into::into), String::from_utf8(client.bytes).unwrap())
}

async fn chat(body: &[&str]) -> (StreamState, Option<String>, String) {
    let chunks = body.iter().map(|text| chunk(*text)).collect();
    ended(Ends::openai_chat(), Voice::OpenAi, chunks).await
}

#[tokio::test(start_paused = true)]
async fn g10_a_last_block_without_its_blank_line_is_delivered_and_classified() {
    for body in [
        &["data: {\"x\":1}\n\ndata: [DONE]"][..],
        &["data: {\"x\":1}\n\ndata: [DONE]\n"],
        &["data: {\"x\":1}\r\n\r\ndata: [DONE]\r\n"],
        &["data: {\"x\":1}\r\rdata: [DONE]\r"],
        &["data: {\"x\":1}\n\nda", "ta: [DO", "NE]"],
    ] {
        let (state, reason, told) = chat(body).await;
        assert_eq!((state, reason), (StreamState::Completed, None), "{body:?}");
        assert!(told.contains("data: {\"x\":1}") && told.contains("data: [DONE]"), "{told}");
        assert!(told.ends_with("\n\n") && !told.contains("error"), "a whole block, and no error: {told:?}");
    }
    let (state, reason, told) = ended(Ends::default(), Voice::Named, vec![chunk("data: a\n\ndata: b")]).await;
    assert_eq!((state, reason.as_deref()), (StreamState::Completed, Some("eof")));
    assert!(told.contains("data: b\nid: "), "{told}");
}

/// A body that breaks off has not ended: its last block is incomplete.
#[tokio::test(start_paused = true)]
async fn g10_half_a_block_before_an_error_is_not_delivered() {
    let (state, reason, told) =
        ended(Ends::default(), Voice::Named, vec![chunk("data: a\n\ndata: hal"), Step::Fail]).await;
    assert_eq!((state, reason.as_deref()), (StreamState::Failed, Some("error")));
    assert!(told.contains("data: a") && !told.contains("hal"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn g10_done_in_other_dress_is_the_end() {
    for done in [
        "data: [DONE] \n\n",
        "data:[DONE]\r\n\r\n",
        "data:   [DONE]\n\n",
        "data: [DONE]x\n\n",
        "data:\ndata: [DONE]\n\n",
    ] {
        for ends in [Ends::openai_chat(), Ends::ai_sdk()] {
            let body = vec![chunk("data: {\"x\":1}\n\n"), chunk(done)];
            let (state, reason, told) = ended(ends, Voice::OpenAi, body).await;
            assert_eq!((state, reason), (StreamState::Completed, None), "{done:?}");
            assert!(!told.contains("error"), "{told}");
        }
    }
    // Within an answer the marker is text.
    let (state, reason, _) = chat(&["data: {\"x\":\"data: [DONE]\"}\n\n"]).await;
    assert_eq!((state, reason.as_deref()), (StreamState::Failed, Some("eof")));
}

#[tokio::test(start_paused = true)]
async fn g10_a_chat_that_ends_after_a_finish_reason_is_complete() {
    let part = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
    for last in [
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\" : \"length\"}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"finish_reason\":null},{\"index\":1,\"finish_reason\":\"stop\"}]}\n\n",
        // The usage comes after the `finish_reason`.
        "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"total_tokens\":9}}\n\n",
        "data: {\"choices\":[{\"finish_reason\":\"tool_calls\"}]}",
    ] {
        let (state, reason, told) = chat(&[part, last]).await;
        assert_eq!((state, reason.as_deref()), (StreamState::Completed, Some("eof")), "{last}");
        assert!(!told.contains("error"), "{told}");
    }
    for cut in [part, "data: {\"text\":\"\\\"finish_reason\\\":\\\"stop\\\"\"}\n\n", "data: {\"finish_reason\":7}\n\n"]
    {
        let (state, reason, told) = chat(&[part, cut]).await;
        assert_eq!((state, reason.as_deref()), (StreamState::Failed, Some("eof")), "{cut}");
        assert!(told.contains("error"), "{told}");
    }
    // The answer went on after the first marker: the last chunk with a `finish_reason` counts.
    let tools = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n";
    let (state, reason, told) = chat(&[part, tools, part, part]).await;
    assert_eq!((state, reason.as_deref()), (StreamState::Failed, Some("eof")));
    assert!(told.contains("error"), "{told}");
    let (state, reason, told) = chat(&[part, tools, part, tools]).await;
    assert_eq!((state, reason.as_deref()), (StreamState::Completed, Some("eof")));
    assert!(!told.contains("error"), "{told}");
    // This holds only for chat completions, and a body that fails has failed.
    let last = "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n";
    let (state, ..) = ended(Ends::ai_sdk(), Voice::OpenAi, vec![chunk(last)]).await;
    assert_eq!(state, StreamState::Failed);
    let (state, reason, _) = ended(Ends::openai_chat(), Voice::OpenAi, vec![chunk(last), Step::Fail]).await;
    assert_eq!((state, reason.as_deref()), (StreamState::Failed, Some("error")));
}

/// JSON may escape any character of a type.
#[tokio::test(start_paused = true)]
async fn g10_a_type_is_known_however_its_json_is_escaped() {
    for (kind, written) in [
        ("job/done", r"job\/done"),
        ("done", r"d\u006fne"),
        ("büro", r"b\u00fcro"),
        ("日本", r"\u65e5\u672c"),
        ("say \"done\"", r#"say \"done\""#),
        (r"a\b", r"a\\b"),
        ("tab\there", r"tab\there"),
        ("two\nlines", r"two\nlines"),
        ("done", "done"),
    ] {
        let ends = Ends::none().on_type(kind, Outcome::Completed).always();
        let body = format!("data: {{\"type\":\"{written}\"}}\n\n");
        let (state, reason, _) = ended(ends, Voice::Named, vec![chunk("data: a\n\n"), chunk(body)]).await;
        assert_eq!((state, reason), (StreamState::Completed, None), "{kind:?} as {written}");
    }
}

/// A format of the host's own, which panics when it is asked whether a body is complete.
struct Panics;

impl Classify for Panics {
    fn classify(&self, event: &EventView<'_>) -> Option<Outcome> {
        (event.data == "end").then_some(Outcome::Completed)
    }

    fn needs_terminal(&self) -> bool {
        true
    }

    fn completes(&self, _: &[u8]) -> Option<bool> {
        panic!("told to panic")
    }
}

#[tokio::test(start_paused = true)]
async fn g11_a_classifier_that_panics_at_what_completes_a_body_ends_no_stream() {
    let (state, _, told) = ended(Panics, Voice::Named, vec![chunk("data: a\n\ndata: b\n\n")]).await;
    assert_eq!(state, StreamState::Failed, "no end marker was seen");
    assert!(told.contains("data: a") && told.contains("data: b"), "{told}");
}

/// An id that the inner service sets without an event is its last id, too.
#[tokio::test(start_paused = true)]
async fn g10_an_inner_id_without_an_event_is_given_back() {
    for batched in [false, true] {
        let store =
            resilient_sse::test_util::FaultStore::new(resilient_sse::MemoryStore::starting_at(1_700_000_000_000));
        let store = if batched { store.batched() } else { store };
        let mut hub = TestHub::on(store, resilient_sse::Builder::anonymous).unwrap();
        let watch = Watch::default();
        let cursors = Arc::new(Mutex::new(Vec::new()));
        let (bodies, heard) = (watch.clone(), Arc::clone(&cursors));
        let app = serving(hub.sse.layer().id(path()), move |request: Request<()>| {
            let cursor = request.headers().get("last-event-id").map(|value| value.to_str().unwrap().to_owned());
            heard.lock().unwrap().push(cursor);
            events(bodies.body(vec![chunk("id: 1\ndata: a\n\n"), Step::Yield, chunk("id: 7\n\n"), Step::Hang]))
        });
        let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
        for _ in 0..2 {
            client.drain();
            hub.advance(SECOND).await;
        }
        let cursor = client.last_id();
        drop(client);
        hub.advance(SECOND).await;
        drop(send(&app, resuming("/s/a", &cursor)).await);
        assert_eq!(*cursors.lock().unwrap(), [None, Some("7".to_owned())], "batched: {batched}");
    }
}
