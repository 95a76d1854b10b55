//! Cursors as real clients send them, and the inner service's own ids (guarantees G1, G10).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use resilient_sse::{
    Ends, Event, Owner, ResilientSseBody, ResilientSseLayer, StreamContext, StreamId, Voice, test_util::TestHub,
};
use tower::ServiceExt as _;

use crate::support::bodies::{
    App, Client, Script, Step, Watch, app, chunk, events, numbered, numbers, request, resuming, send, serving, then,
};

fn path() -> impl resilient_sse::Identify {
    StreamId::path("/s/{id}")
}

/// The ids of the events of a stream that has ended, the terminal one last.
async fn ids(app: &App, uri: &str, hub: &mut TestHub) -> Vec<String> {
    let mut client = Client::new(send(app, request(uri)).await.into_body());
    client.finish(hub).await;
    client.seen.iter().map(|event| event.id.clone()).filter(|id| !id.is_empty()).collect()
}

/// The data of all events that a request gets.
async fn data(app: &App, hub: &mut TestHub, request: Request<()>) -> Vec<String> {
    let mut client = Client::new(send(app, request).await.into_body());
    client.finish(hub).await;
    client.seen.iter().filter(|event| event.name == "message").map(|event| event.data.clone()).collect()
}

fn with_headers(uri: &str, cursors: &[&str]) -> Request<()> {
    let mut request = request(uri);
    for cursor in cursors {
        request.headers_mut().append("last-event-id", cursor.parse().unwrap());
    }
    request
}

#[tokio::test(start_paused = true)]
async fn g1_a_cursor_counts_wherever_a_client_puts_it() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, numbers(20));
    let ids = ids(&app, "/s/x", &mut hub).await;
    let (old, new) = (&*ids[1], &*ids[14]);
    let rest = numbered(20).split_off(15);
    for (what, request) in [
        ("the header", with_headers("/s/x", &[new])),
        ("the polyfill's parameter", request(&format!("/s/x?lastEventId={new}"))),
        ("the header's name as a parameter", request(&format!("/s/x?Last-Event-ID={new}"))),
        ("a parameter that was appended", request(&format!("/s/x?last_event_id={old}&last_event_id={new}"))),
        ("a parameter that was put in front", request(&format!("/s/x?last_event_id={new}&lastEventId={old}"))),
        ("an empty header beside a parameter", with_headers(&format!("/s/x?last_event_id={new}"), &[""])),
        ("an empty parameter beside the header", with_headers("/s/x?last_event_id=", &[new])),
        ("two header lines", with_headers("/s/x", &[old, new])),
        ("two header lines, the other way round", with_headers("/s/x", &[new, old])),
        ("an old header, a new parameter", with_headers(&format!("/s/x?lastEventId={new}"), &[old])),
        ("an encoded one", request(&format!("/s/x?last_event_id={}", new.replace('-', "%2D").replace('e', "%65")))),
        ("one beside a foreign one", with_headers(&format!("/s/x?last_event_id={new}"), &["1700000000000-0"])),
        ("one beside `$`", with_headers(&format!("/s/x?last_event_id={new}"), &["$"])),
    ] {
        assert_eq!(data(&app, &mut hub, request).await, rest, "{what}");
    }
    assert_eq!(watch.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn g1_of_cursors_of_different_streams_the_header_names_the_one_to_resume() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation(), &watch, numbers(4));
    let first = ids(&app, "/", &mut hub).await;
    let second = ids(&app, "/", &mut hub).await;
    let both = with_headers(&format!("/?last_event_id={}", second[0]), &[&first[1]]);
    let mut client = Client::new(send(&app, both).await.into_body());
    client.finish(&mut hub).await;
    assert_eq!(client.seen.last().unwrap().id, *first.last().unwrap());
    assert!(!client.names().contains(&"gap"));
    assert_eq!(watch.made(), 2);
}

#[tokio::test(start_paused = true)]
async fn g1_ids_of_other_systems_are_not_taken_for_ours() {
    let foreign = [
        "1700000000000-0",
        "1700000000000-7",
        "0-0",
        "0",
        "42",
        "e5",
        "uuid-5",
        "0b8d9f0e-5c0f-4d0a-9b57-0242ac120002",
        "job-1.e1-1",
    ];
    for cursor in foreign {
        for (name, layer) in [
            ("named", as_layer(|hub| hub.sse.generation().id(path()))),
            ("made up", as_layer(|hub| hub.sse.generation())),
            ("feed", as_layer(|hub| hub.sse.feed())),
        ] {
            let hub = TestHub::new();
            let watch = Watch::default();
            let app = app(layer(&hub), &watch, then(numbers(2), Step::Hang));
            let response = send(&app, resuming("/s/new", cursor)).await;
            assert_eq!(response.status(), 200, "{cursor} on a {name} route: its work can be done");
            let mut client = Client::new(response.into_body());
            client.drain();
            assert_eq!(client.names(), ["gap", "message", "message"], "{cursor} on a {name} route");
            assert_eq!(watch.made(), 1);
        }
    }
}

fn as_layer<F: Fn(&TestHub) -> ResilientSseLayer + 'static>(layer: F) -> Box<dyn Fn(&TestHub) -> ResilientSseLayer> {
    Box::new(layer)
}

/// The last ids that the inner service got with each request: from `Last-Event-ID`, and from its context.
type Heard = Arc<Mutex<Vec<(Option<Vec<u8>>, Option<String>)>>>;

fn listening(hub: &TestHub, heard: &Heard, blocks: Bytes) -> App {
    let (watch, heard) = (Watch::default(), Arc::clone(heard));
    serving(hub.sse.layer().id(path()), move |request: Request<()>| {
        let header = request.headers().get("last-event-id").map(|id| id.as_bytes().to_vec());
        let context = request.extensions().get::<StreamContext>().unwrap();
        heard.lock().unwrap().push((header, context.last_inner_id().map(str::to_owned)));
        events(watch.body(vec![Step::Chunk(blocks.clone()), Step::Hang]))
    })
}

/// Returns the last ids that the second run of an inner service gets, after its first run sent these blocks.
async fn heard_after(blocks: &str) -> (Option<Vec<u8>>, Option<String>) {
    let mut hub = TestHub::new();
    let heard = Heard::default();
    let app = listening(&hub, &heard, Bytes::from(blocks.to_owned()));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.drain();
    hub.step().await;
    let cursor = client.last_id();
    drop(client);
    hub.step().await;
    let mut again = Client::new(send(&app, resuming("/s/a", &cursor)).await.into_body());
    again.drain();
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 2, "it ran twice");
    assert_eq!(heard[0], (None, None));
    heard[1].clone()
}

#[tokio::test(start_paused = true)]
async fn g10_an_inner_id_is_given_back_byte_for_byte() {
    for id in ["7", "tâche-1", "日本", "a b", " x", "a,b;c=\"d\"", "e5-6", "$"] {
        let (header, context) = heard_after(&format!("id: {id}\ndata: a\n\n")).await;
        assert_eq!(header.as_deref(), Some(id.as_bytes()), "{id:?}");
        assert_eq!(context.as_deref(), Some(id));
    }
}

#[tokio::test(start_paused = true)]
async fn g10_an_empty_inner_id_resets_what_the_inner_service_hears() {
    let (header, _) = heard_after("id: 5\ndata: a\n\nid:\ndata: b\n\n").await;
    assert_eq!(header, None);
}

#[tokio::test(start_paused = true)]
async fn g10_an_inner_id_that_no_header_can_hold_is_in_the_context() {
    let (header, context) = heard_after("id: a\u{1}b\ndata: a\n\n").await;
    assert_eq!((header, context.as_deref()), (None, Some("a\u{1}b")));
}

#[tokio::test(start_paused = true)]
async fn g10_the_inner_service_s_query_is_its_own() {
    let hub = TestHub::new();
    let targets = Arc::new(Mutex::new(Vec::new()));
    let (watch, seen) = (Watch::default(), Arc::clone(&targets));
    let app = serving(hub.sse.layer().id(path()), move |request: Request<()>| {
        seen.lock().unwrap().push(request.uri().to_string());
        events(watch.body(vec![chunk("data: a\n\n")]))
    });
    for (n, (query, inner)) in [
        ("?a=1&last_event_id=e5-6&b=%41", "?a=1&b=%41"),
        ("?lastEventId=00000000-0000-4000-8000-000000000000.e5-6", ""),
        ("?last_event_id=$", ""),
        ("?last_event_id=1700000000000-0", "?last_event_id=1700000000000-0"),
        ("?a=e5-6", "?a=e5-6"),
    ]
    .iter()
    .enumerate()
    {
        drop(send(&app, request(&format!("/s/q{n}{query}"))).await);
        assert_eq!(targets.lock().unwrap().pop().unwrap(), format!("/s/q{n}{inner}"));
    }
}

/// No cursor that a client sends makes a request fail or appears in an answer.
#[tokio::test(start_paused = true)]
async fn g9_no_bytes_of_a_cursor_are_echoed() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, then(numbers(1), Step::Hang));
    for (n, bytes) in
        [&b"\xff\xfe<>"[..], b"e1-1\tdata", b"<script>alert(1)</script>", b"\xe2\x80\xa8mark"].iter().enumerate()
    {
        let mut ask = request(&format!("/s/e{n}"));
        ask.headers_mut().insert("last-event-id", HeaderValue::from_bytes(bytes).unwrap());
        let response: Response<_> = app.clone().oneshot(ask).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(!frame.windows(bytes.len()).any(|window| window == *bytes), "{frame:?}");
    }
}

/// A cursor does not reach the streams of another route, which may have an authorisation of its own.
#[tokio::test(start_paused = true)]
async fn g9_a_route_that_makes_up_ids_reads_only_its_own_streams() {
    let hub = TestHub::new();
    let (admin, feed, other) = (Watch::default(), Watch::default(), Watch::default());
    let uuid = StreamId::random();
    let admin_layer = hub.sse.layer().id(StreamId::path("/admin/{id}")).kind("admin");
    let admins = app(admin_layer, &admin, then(vec![chunk("data: secret\n\n")], Step::Hang));
    let feeds = app(hub.sse.feed(), &feed, then(vec![chunk("data: public\n\n")], Step::Hang));
    let others = app(hub.sse.layer().kind("other"), &other, then(vec![chunk("data: other\n\n")], Step::Hang));
    let job = StreamId::random();
    hub.sse.publisher().send(&Owner::ANONYMOUS, &job, Event::new("published")).await.unwrap();
    for id in ["job-1", uuid.as_str()] {
        let path = format!("/admin/{id}");
        let mut boss = Client::new(send(&admins, request(&path)).await.into_body());
        boss.drain();
        let event = boss.last_id();
        assert!(event.starts_with('e'), "a name that the request gave is not in the cursor: {event}");
        // While it runs, and while it is interrupted.
        for leaves in [false, true] {
            if leaves {
                boss.body = None;
                hub_settles().await;
            }
            for named in [event.clone(), format!("{id}.{event}"), format!("{id}.e1-1"), format!("{job}.e1-1")] {
                let response = send(&feeds, resuming("/feed", &named)).await;
                assert_eq!(response.status(), 200, "a feed survives a cursor of anything");
                let mut client = Client::new(response.into_body());
                client.drain();
                assert_eq!(client.data().last(), Some(&"public"), "{named}");
                assert!(!client.data().contains(&"secret") && !client.data().contains(&"published"), "{named}");
            }
        }
        let mut boss = Client::new(send(&admins, resuming(&path, &event)).await.into_body());
        boss.drain();
        assert_eq!(boss.data().last(), Some(&"secret"), "{:?}", boss.data());
        assert!(!boss.data().contains(&"public"), "nobody else has run into it");
    }
    // Of two routes that both make up ids, each knows its own.
    let mut first = Client::new(send(&others, request("/other")).await.into_body());
    first.drain();
    let mut client = Client::new(send(&feeds, resuming("/feed", &first.last_id())).await.into_body());
    client.drain();
    assert_eq!(client.data().last(), Some(&"public"));
    assert!(!client.data().contains(&"other"));
}

async fn hub_settles() {
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
}

/// The SDKs of OpenAI ask for JSON and expect an event stream.
#[tokio::test(start_paused = true)]
async fn accept_decides_nothing_on_a_stream_s_own_route() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, numbers(3));
    let ids = ids(&app, "/s/a", &mut hub).await;
    for accept in ["application/json", "*/*", "text/event-stream;q=0", "text/html"] {
        for cursor in [None, Some(&ids[0])] {
            let mut ask = cursor.map_or_else(|| request("/s/a"), |cursor| resuming("/s/a", cursor));
            ask.headers_mut().insert("accept", accept.parse().unwrap());
            let response = send(&app, ask).await;
            assert_eq!(response.headers()["content-type"], "text/event-stream", "{accept}");
            let mut client = Client::new(response.into_body());
            client.finish(&mut hub).await;
            assert_eq!(client.data()[..2], if cursor.is_some() { ["1", "2"] } else { ["0", "1"] });
        }
    }
    assert_eq!(watch.made(), 1);
}

/// Returns what a client gets of an ended stream of 20 events, of which only the last few are held.
async fn of_what_is_left(voice: Voice, ends: bool, ask: fn(&str) -> Request<()>) -> Client<ResilientSseBody<Script>> {
    let mut hub = TestHub::with(|builder| builder.anonymous().max_log_events(5)).unwrap();
    let layer = hub.sse.generation().id(path()).classify(Ends::openai_chat()).voice(voice);
    let steps = if ends { then(numbers(20), chunk("data: [DONE]\n\n")) } else { then(numbers(20), Step::Hang) };
    let app = app(layer, &Watch::default(), steps);
    let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
    first.drain();
    hub.advance(Duration::from_secs(1)).await;
    let mut client = Client::new(send(&app, ask("/s/a")).await.into_body());
    client.drain();
    hub.advance(Duration::from_secs(1)).await;
    client.drain();
    client
}

/// A truncated answer does not look whole, whatever cursor the client sent.
#[tokio::test(start_paused = true)]
async fn g1_a_cursor_that_cannot_be_read_hides_no_missing_beginning() {
    let without: fn(&str) -> Request<()> = request;
    let foreign: fn(&str) -> Request<()> = |uri| resuming(uri, "17");
    for ask in [without, foreign] {
        for ends in [true, false] {
            let client = of_what_is_left(Voice::OpenAi, ends, ask).await;
            assert!(client.broke, "{:?}", client.data());
            assert_eq!(client.data().len(), 1, "{:?}", client.data());
            assert!(client.data()[0].contains("\"code\":\"gap\""), "{:?}", client.data());
            let client = of_what_is_left(Voice::Silent, ends, ask).await;
            assert!(client.broke && client.data().is_empty(), "{:?}", client.data());
        }
        let client = of_what_is_left(Voice::Named, true, ask).await;
        assert!(client.ended && !client.broke);
        assert_eq!((client.names()[0], client.data().last()), ("gap", Some(&"[DONE]")), "{:?}", client.data());
    }
}

/// Where nothing is missing, a voice without a word for a gap needs none for such a cursor.
#[tokio::test(start_paused = true)]
async fn g1_a_cursor_that_cannot_be_read_breaks_no_whole_answer() {
    for voice in [Voice::OpenAi, Voice::Silent] {
        let mut hub = TestHub::new();
        let layer = hub.sse.generation().id(path()).classify(Ends::openai_chat()).voice(voice);
        let app = app(layer, &Watch::default(), then(numbers(20), chunk("data: [DONE]\n\n")));
        let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
        first.finish(&mut hub).await;
        let mut client = Client::new(send(&app, resuming("/s/a", "17")).await.into_body());
        client.finish(&mut hub).await;
        assert_eq!((client.broke, client.data().len()), (false, 21), "{voice:?}: {:?}", client.data());
        // A feed's reader is owed nothing before its first event.
        let mut hub = TestHub::with(|builder| builder.anonymous().max_log_events(5)).unwrap();
        let app = app_of(hub.sse.feed().id(path()).voice(voice), then(numbers(20), Step::Hang));
        let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
        first.drain();
        hub.advance(Duration::from_secs(1)).await;
        let mut client = Client::new(send(&app, resuming("/s/a", "17")).await.into_body());
        client.drain();
        hub.advance(Duration::from_secs(1)).await;
        client.drain();
        assert_eq!((client.ended, client.data().last()), (false, Some(&"19")), "{voice:?}");
    }
}

fn app_of(layer: ResilientSseLayer, steps: Vec<Step>) -> App {
    app(layer, &Watch::default(), steps)
}
