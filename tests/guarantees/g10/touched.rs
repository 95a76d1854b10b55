//! G10: which parts of an event stream are changed, and which are not.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use resilient_sse::{Disconnect, Event, Owner, Record, RecordKind, StreamId, StreamKey, Voice, test_util::TestHub};
use tower::ServiceExt as _;

use crate::support::bodies::{
    App, Client, Step, Watch, app, assert_no_empty_block, chunk, events, numbers, request, resuming, send, serving,
    then,
};

fn path() -> impl resilient_sse::Identify {
    StreamId::path("/s/{id}")
}

async fn open(app: &App, uri: &str) -> Client<resilient_sse::ResilientSseBody<crate::support::bodies::Script>> {
    Client::new(send(app, request(uri)).await.into_body())
}

#[tokio::test(start_paused = true)]
async fn g10_event_content_passes_byte_for_byte_and_ids_are_replaced() {
    let cases: [(&str, &str); 9] = [
        ("data: a\r\ndata: b\r\n\r\n", "data: a\r\ndata: b\r\nid: @\n\n"),
        ("data: a\rdata: b\r\r", "data: a\rdata: b\rid: @\n\n"),
        ("\u{feff}data: a\n\n", "data: a\nid: @\n\n"),
        (
            "event: e\n: inside\ndata:  two  \ndata\nfoo: bar\n\n",
            "event: e\n: inside\ndata:  two  \ndata\nfoo: bar\nid: @\n\n",
        ),
        ("id: 7\ndata: a\n\n", "data: a\nid: @\n\n"),
        ("data: a\nid: 7\nid: 8\n\n", "data: a\nid: @\n\n"),
        ("data: a\nid\n\n", "data: a\nid: @\n\n"),
        ("data: \u{0}\u{1f600}\n\n", "data: \u{0}\u{1f600}\nid: @\n\n"),
        ("retry: 77\ndata: a\n\n", "retry: 77\ndata: a\nid: @\n\n"),
    ];
    for (inner, outer) in cases {
        // In one piece, and byte by byte.
        let whole = vec![chunk(inner), Step::Hang];
        let bytes = inner.bytes().map(|byte| Step::Chunk(bytes::Bytes::copy_from_slice(&[byte])));
        for steps in [whole, then(bytes.collect(), Step::Hang)] {
            let mut hub = TestHub::new();
            let watch = Watch::default();
            let app = app(hub.sse.generation().id(path()).voice(Voice::Silent), &watch, steps);
            let mut client = open(&app, "/s/a").await;
            client.drain();
            hub.step().await;
            let text = String::from_utf8(client.bytes.clone()).unwrap();
            // The inner delay wins.
            let own = if inner.contains("retry") { "" } else { text.split_inclusive('\n').next().unwrap() };
            assert!(own.is_empty() || own.starts_with("retry: "), "{own}");
            let text = &text[own.len()..];
            assert_eq!(text, outer.replace('@', &client.last_id()), "{inner:?}");
            let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
            let page = hub.sse.completions().events(&key, None, 10).await.unwrap().unwrap();
            let Some(Record { kind: RecordKind::Events(event), .. }) = page.records.last() else { panic!("no event") };
            assert!(text.as_bytes().ends_with(&event.bytes), "the log keeps what was delivered: {event:?}");
            let mut follower = Client::new(send(&app, request("/s/a")).await.into_body());
            follower.drain();
            let again = String::from_utf8(follower.bytes.clone()).unwrap();
            let own = if inner.contains("retry") { "" } else { again.split_inclusive('\n').next().unwrap() };
            assert_eq!(&again[own.len()..], text, "replayed as delivered");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g10_the_inner_id_is_given_back_to_the_inner_service() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (bodies, heard) = (watch.clone(), seen.clone());
    let app = serving(hub.sse.layer().id(path()), move |request: Request<()>| {
        heard.lock().unwrap().push(request.headers().get("last-event-id").map(|id| id.to_str().unwrap().to_owned()));
        events(bodies.body(vec![chunk("id: inner-1\ndata: a\n\n"), chunk("id: inner-2\n\ndata: b\n\n"), Step::Hang]))
    });
    let mut client = open(&app, "/s/a").await;
    client.drain();
    assert_eq!(client.data(), ["a", "b"]);
    let cursor = client.last_id();
    drop(client);
    hub.step().await;
    let mut client = Client::new(send(&app, resuming("/s/a", &cursor)).await.into_body());
    client.drain();
    assert_eq!(*seen.lock().unwrap(), [None, Some("inner-2".to_owned())]);
    assert_eq!(client.names(), ["restart", "message", "message"]);
}

#[tokio::test(start_paused = true)]
async fn g10_a_heartbeat_is_one_comment_line_after_exactly_the_interval() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, then(numbers(1), Step::Hang));
    let mut client = open(&app, "/s/a").await;
    client.drain();
    let mut follower = open(&app, "/s/a").await;
    follower.drain();
    let spoken = (client.frames.len(), follower.frames.len());
    for interval in 1..4 {
        hub.advance(Duration::from_millis(14_750)).await;
        client.drain();
        follower.drain();
        assert_eq!((client.frames.len(), follower.frames.len()), (spoken.0 + interval - 1, spoken.1 + interval - 1));
        hub.advance(Duration::from_millis(250)).await;
        client.drain();
        follower.drain();
        assert_eq!(client.frames.last().unwrap(), ": heartbeat\n", "{interval}");
        assert_eq!(follower.frames.last().unwrap(), ": heartbeat\n", "{interval}");
    }
}

#[tokio::test(start_paused = true)]
async fn g10_retry_stands_in_the_first_block_with_data_and_differs() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let mut delays = std::collections::HashSet::new();
    for (n, voice) in [Voice::Named, Voice::Json, Voice::OpenAi, Voice::Silent].into_iter().cycle().take(40).enumerate()
    {
        let steps = vec![chunk(": hi\n\n"), chunk("data: x\n\n"), Step::Hang];
        let app = app(hub.sse.generation().id(path()).voice(voice), &watch, steps);
        for _ in 0..2 {
            let mut client = open(&app, &format!("/s/{n}")).await;
            client.drain();
            let text = String::from_utf8(client.bytes.clone()).unwrap();
            assert_eq!(text.matches("retry: ").count(), 1, "{text}");
            let blocks: Vec<_> = text.split_inclusive("\n\n").collect();
            let first = blocks.iter().find(|block| block.contains("data:")).unwrap();
            let retry = first.lines().find_map(|line| line.strip_prefix("retry: ")).unwrap();
            let ms: u64 = retry.parse().unwrap();
            assert!((1000..=5000).contains(&ms), "{ms}");
            delays.insert(ms);
            assert_no_empty_block(&client.bytes);
        }
    }
    assert!(delays.len() > 60, "random per connection");
}

#[tokio::test(start_paused = true)]
async fn g10_the_headers_of_an_event_stream() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let bodies = watch.clone();
    let app = serving(hub.sse.generation().id(path()), move |_| {
        let mut response = events(bodies.body(numbers(1)));
        let headers = response.headers_mut();
        headers.insert("content-length", "9".parse().unwrap());
        headers.insert("cache-control", "public, max-age=60".parse().unwrap());
        headers.insert("x-own", "kept".parse().unwrap());
        response
    });
    let produced = send(&app, request("/s/a")).await;
    assert_eq!(produced.headers()["x-own"], "kept");
    let followed = send(&app, request("/s/a")).await;
    let mut accept = request("/a/recover");
    accept.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let recovered = hub.sse.recover().oneshot(accept).await.unwrap();
    let relayed = hub.sse.relay().oneshot(request("/a")).await.unwrap();
    for headers in [produced.headers(), followed.headers(), recovered.headers(), relayed.headers()] {
        assert_eq!(headers["x-stream-id"], "a");
        assert_eq!(headers["cache-control"], "no-store, no-transform");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert_eq!(headers["content-type"], "text/event-stream");
        assert!(headers.get("content-length").is_none() && headers.get("x-stream-recorded").is_none());
    }
    assert!(!http_body::Body::is_end_stream(produced.body()));
    assert_eq!(http_body::Body::size_hint(produced.body()).exact(), None);
    let mut client = Client::new(produced.into_body());
    client.finish(&mut hub).await;
}

/// Returns everything that a client of `voice` receives on every kind of ending, gap and restart.
async fn transcripts(voice: Voice) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for steps in [
        numbers(3),
        then(numbers(3), Step::Fail),
        then(numbers(3), Step::Panic),
        then(numbers(3), chunk("event: completed\ndata: done\n\n")),
        vec![chunk(": c\n\n\n\nretry: 5\n\nid: 4\n\nevent: only\n\ndata: x\n\n: d\n\n")],
        vec![],
        vec![Step::Hang],
    ] {
        let hangs = matches!(steps.last(), Some(Step::Hang));
        for policy in [Disconnect::DETACH, Disconnect::Interrupt, Disconnect::Cancel] {
            let mut hub = TestHub::new();
            let watch = Watch::default();
            let layer = hub.sse.layer().id(path()).on_disconnect(policy).voice(voice);
            let app = app(layer, &watch, steps.clone());
            for cursor in ["", "gibberish", "e5-5"] {
                let mut client = Client::new(send(&app, resuming("/s/a", cursor)).await.into_body());
                client.drain();
                hub.advance(Duration::from_secs(16)).await;
                client.drain();
                if hangs && cursor == "e5-5" {
                    hub.sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new("a").unwrap()).await.unwrap();
                    hub.advance(Duration::from_secs(1)).await;
                    client.drain();
                }
                all.push(client.bytes.clone());
            }
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn g10_the_library_never_ends_a_block_without_data() {
    for voice in [Voice::Named, Voice::Json, Voice::OpenAi, Voice::Silent] {
        for transcript in transcripts(voice).await {
            assert_no_empty_block(&transcript);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g10_what_a_strict_client_of_each_voice_sees() {
    let names = |voice| async move {
        let mut names: Vec<_> = Vec::new();
        for transcript in transcripts(voice).await {
            let mut client = Client::new(http_body_util::Full::new(bytes::Bytes::from(transcript)));
            client.drain();
            names.extend(client.seen.iter().map(|event| (event.name.clone(), event.data.clone())));
        }
        names
    };
    for (name, data) in names(Voice::Json).await {
        assert!(name == "message" || name == "completed", "{name}: {data}");
    }
    for (name, data) in names(Voice::OpenAi).await {
        let own = data.parse::<u64>().is_ok() || ["x", "done"].contains(&&*data);
        let error = data.starts_with(r#"{"error":{"#) && data.contains(r#""message":"#) && data.contains(r#""code":"#);
        assert!(own || error, "{name}: {data}");
    }
    for (name, data) in names(Voice::Silent).await {
        assert!(data.parse::<u64>().is_ok() || ["x", "done"].contains(&&*data), "{name}: {data}");
    }
}

#[tokio::test(start_paused = true)]
async fn g10_a_published_event_is_written_and_read_back_whole() {
    let mut hub = TestHub::new();
    let spec = resilient_sse::StreamSpec::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    let mut job = hub.sse.publisher().open(spec).await.unwrap();
    for data in ["", "a\nb", "\n", " lead", "tail ", "{\"a\":\"\\n\"}", "日本\u{2028}"] {
        job.send(Event::new(data).named("n").with_id("own")).await.unwrap();
    }
    job.complete(Event::new("end")).await.unwrap();
    let response: Response<_> = hub.sse.relay().oneshot(request("/a")).await.unwrap();
    let bytes = tokio::time::timeout(Duration::from_secs(1), response.into_body().collect()).await.unwrap().unwrap();
    let mut client = Client::new(http_body_util::Full::new(bytes.to_bytes()));
    client.drain();
    assert_eq!(client.data(), ["", "a\nb", "\n", " lead", "tail ", "{\"a\":\"\\n\"}", "日本\u{2028}", "end"]);
    assert!(client.seen.iter().all(|event| event.id != "own"));
    hub.step().await;
}

/// The inner service's reconnect delay applies in every voice, and also to later clients.
#[tokio::test(start_paused = true)]
async fn g10_the_inner_reconnect_delay_wins_and_is_kept() {
    for voice in [Voice::Named, Voice::Json, Voice::OpenAi, Voice::Silent] {
        for first in ["retry: 60000\n\ndata: a\n\n", "retry: 60000\ndata: a\n\n"] {
            let mut hub = TestHub::new();
            let watch = Watch::default();
            let steps = vec![chunk(first), chunk("data: b\n\n"), Step::Hang];
            let app = app(hub.sse.generation().id(path()).voice(voice), &watch, steps);
            let last_delay = |client: &Client<_>| {
                let text = String::from_utf8(client.bytes.clone()).unwrap();
                let mut delays = text.lines().filter_map(|line| line.strip_prefix("retry: "));
                delays.next_back().map(|delay| delay.parse::<u64>().unwrap())
            };
            let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
            client.drain();
            hub.step().await;
            assert_eq!(last_delay(&client), Some(60_000), "{voice:?}");
            let cursor = client.seen[client.seen.len() - 2].id.clone();
            let mut again = Client::new(send(&app, resuming("/s/a", &cursor)).await.into_body());
            again.drain();
            assert_eq!((again.data().last(), last_delay(&again)), (Some(&"b"), Some(60_000)), "{voice:?}");
        }
    }
}
