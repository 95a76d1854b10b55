//! The answers of recovery, and who gets them (guarantees G1, G3).

use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use resilient_sse::{
    AnswerBody, Event, MemoryStore, Owner, Store as _, StreamId, StreamKey, StreamSpec,
    store::Interrupt,
    test_util::{Fault, FaultStore, TestHub},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::bodies::{App, Client, Step, Watch, app, chunk, numbers, request, resuming, send, then};

const SECOND: Duration = Duration::from_secs(1);

fn path() -> impl resilient_sse::Identify {
    StreamId::path("/s/{id}")
}

async fn ask(hub: &TestHub, request: Request<()>) -> Response<AnswerBody> {
    hub.sse.recover().id(StreamId::path("/s/{id}/recover")).oneshot(request).await.unwrap()
}

async fn text(response: Response<AnswerBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn recovered(hub: &TestHub, uri: &str) -> Value {
    let response = ask(hub, request(uri)).await;
    assert_eq!(response.status(), 200, "{uri}");
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store, no-transform");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    serde_json::from_str(&text(response).await).unwrap()
}

fn data(answer: &Value) -> Vec<&str> {
    answer["events"].as_array().unwrap().iter().map(|event| event["data"].as_str().unwrap()).collect()
}

/// A stream of some events, running or ended, and its client's last cursor.
async fn stream(
    hub: &mut TestHub,
    uri: &str,
    layer: resilient_sse::ResilientSseLayer,
    steps: Vec<Step>,
) -> (App, Client<impl http_body::Body<Data = bytes::Bytes> + use<>>) {
    let app = app(layer, &Watch::default(), steps);
    let mut client = Client::new(send(&app, request(uri)).await.into_body());
    client.drain();
    hub.advance(SECOND).await;
    client.drain();
    (app, client)
}

#[tokio::test(start_paused = true)]
async fn g1_a_running_stream_s_page_is_complete_or_says_what_is_missing() {
    let mut hub = TestHub::with(|builder| builder.anonymous().max_log_events(10)).unwrap();
    let layer = hub.sse.generation().id(path());
    let (_app, client) = stream(&mut hub, "/s/a", layer, then(numbers(25), Step::Hang)).await;
    let answer = recovered(&hub, "/s/a/recover").await;
    let object = answer.as_object().unwrap();
    let mut keys: Vec<_> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["events", "kind", "lastHeartbeat", "missing", "next", "startedAt", "status", "streamId"]);
    assert_eq!(
        (&answer["status"], &answer["streamId"], &answer["kind"]),
        (&json!("active"), &json!("a"), &json!("generation"))
    );
    assert_eq!(data(&answer).last(), Some(&"24"));
    let held = data(&answer).len() as u64;
    assert!((10..25).contains(&held));
    assert_eq!((&answer["missing"], &answer["next"]), (&json!(25 - held), &Value::Null), "the head was trimmed");

    // The same from a cursor: only events after it are missing.
    let third = client.seen.iter().find(|event| event.data == "2").unwrap().id.clone();
    let answer = recovered(&hub, &format!("/s/a/recover?after={third}")).await;
    assert_eq!(answer["missing"], json!(25 - held - 3));
    let last = recovered(&hub, &format!("/s/a/recover?after={}", client.last_id())).await;
    assert_eq!((data(&last).len(), &last["missing"], &last["next"]), (0, &json!(0), &Value::Null));

    // With a cursor of another stream the number is unknown.
    for after in ["e9999999999999-1", "other.e1-1"] {
        let answer = recovered(&hub, &format!("/s/a/recover?after={after}")).await;
        assert_eq!((data(&answer).len() as u64, &answer["missing"]), (held, &Value::Null), "{after}");
    }
}

#[tokio::test(start_paused = true)]
async fn g1_pages_follow_one_another_without_a_hole() {
    let mut hub = TestHub::new();
    let layer = hub.sse.layer().id(path());
    let app = app(layer, &Watch::default(), then(numbers(7), Step::Hang));
    // Three runs, with markers between them, in one log.
    let mut cursor = String::new();
    for _ in 0..3 {
        let mut client = Client::new(send(&app, resuming("/s/a", &cursor)).await.into_body());
        client.drain();
        hub.advance(SECOND).await;
        cursor = client.last_id();
    }
    let key = resilient_sse::StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    let held = hub.sse.completions().events(&key, None, 100).await.unwrap().unwrap().records;
    let start = held.iter().find(|record| record.id.seq == 1).unwrap().id;
    for limit in [1, 2, 3, 6, 7, 8, 100] {
        let (mut after, mut seen) = (start.to_string(), Vec::new());
        loop {
            let answer = recovered(&hub, &format!("/s/a/recover?after={after}&limit={limit}")).await;
            let events = data(&answer);
            assert!(events.len() <= limit && (!events.is_empty() || answer["next"].is_null()), "{limit}: {answer}");
            assert_eq!(answer["missing"], 0);
            seen.extend(events.iter().map(|data| (*data).to_owned()));
            match answer["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        let all: Vec<_> = (0..3).flat_map(|_| 0..7).skip(1).map(|n: usize| n.to_string()).collect();
        assert_eq!(seen, all, "limit {limit}");
    }
}

/// A page of 4 MiB is followed by the next run's marker, which shows the loss of the run before.
#[tokio::test(start_paused = true)]
async fn g1_what_is_lost_between_two_pages_is_counted_once() {
    let mut hub = TestHub::new();
    let half = |n: usize| chunk(format!("data: {n}{}\n\n", "x".repeat((512 << 10) - 64)));
    let app = app(hub.sse.layer().id(path()), &Watch::default(), then((0..8).map(half).collect(), Step::Hang));
    let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
    first.drain();
    hub.advance(SECOND).await;
    first.drain();
    let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    let epoch = hub.sse.registry().stream(&key).await.unwrap().unwrap().epoch;
    // Two more events were made but never recorded.
    hub.store.interrupt(Interrupt { key, epoch, last: Some(10), if_deadline: None }).await.unwrap();
    let mut second = Client::new(send(&app, request("/s/a")).await.into_body());
    second.drain();
    hub.advance(SECOND).await;
    let page = recovered(&hub, &format!("/s/a/recover?after=e{epoch}-0")).await;
    assert_eq!((data(&page).len(), &page["missing"]), (8, &json!(0)));
    let next = recovered(&hub, &format!("/s/a/recover?after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((data(&next).len(), &next["missing"]), (8, &json!(2)));
}

#[tokio::test(start_paused = true)]
async fn g3_an_ended_stream_gives_its_end_and_on_request_its_events() {
    let mut hub = TestHub::new();
    let layer = hub.sse.generation().id(path());
    let steps = vec![chunk("data: one\n\n"), chunk("data: two\n\n"), chunk("event: completed\ndata: {\"n\":1}\n\n")];
    let (_app, client) = stream(&mut hub, "/s/a", layer, steps).await;
    let answer = recovered(&hub, "/s/a/recover").await;
    let completed_at = answer["completedAt"].clone();
    assert!(completed_at.is_u64());
    let end = json!({
        "status": "completed", "reason": null, "streamId": "a", "terminalEventType": "completed",
        "terminalEventData": {"n": 1}, "completedAt": completed_at,
    });
    assert_eq!(answer, end);
    let first = client.seen.iter().find(|event| event.data == "one").unwrap().id.clone();
    for (query, events) in [
        ("events=true".to_owned(), vec!["one", "two"]),
        ("limit=1".to_owned(), vec!["one"]),
        (format!("after={first}"), vec!["two"]),
        (format!("after={first}&after={}", client.seen[2].id), vec![]),
    ] {
        let answer = recovered(&hub, &format!("/s/a/recover?{query}")).await;
        assert_eq!(data(&answer), events, "{query}");
        assert_eq!((&answer["missing"], &answer["terminalEventData"]["n"]), (&json!(0), &json!(1)));
        assert_eq!(answer["next"].is_null(), !query.starts_with("limit"));
    }
    for query in ["events=false", "other=1", "after="] {
        assert_eq!(recovered(&hub, &format!("/s/a/recover?{query}")).await, end, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn g1_what_is_lost_at_the_very_end_is_missing_too() {
    let mut hub = TestHub::on(FaultStore::new(MemoryStore::new()).batched(), |builder| {
        builder.anonymous().recorder_bytes(100).max_event_bytes(100)
    })
    .unwrap();
    let steps = vec![chunk("data: 0\n\n"), Step::Sleep(SECOND * 2)];
    let steps = [steps, (1..40).map(|n| chunk(format!("data: {n}\n\n"))).collect()].concat();
    let layer = hub.sse.generation().id(path());
    let (_app, mut client) = stream(&mut hub, "/s/a", layer, steps).await;
    hub.store.fail(Fault::Hang);
    hub.advance(SECOND * 6).await;
    client.drain();
    hub.store.heal();
    client.finish(&mut hub).await;
    hub.advance(SECOND * 10).await;
    let answer = recovered(&hub, "/s/a/recover?events=true").await;
    let held = data(&answer).len() as u64;
    assert!(held < 40, "some are lost: {answer}");
    assert_eq!((&answer["status"], &answer["missing"]), (&json!("completed"), &json!(40 - held)));
}

#[tokio::test(start_paused = true)]
async fn g1_an_id_that_recovery_gives_is_a_cursor_on_the_stream_s_own_route() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation(), &watch, then(numbers(3), Step::Hang));
    let answer = send(&app, request("/")).await;
    let id = answer.headers()["x-stream-id"].to_str().unwrap().to_owned();
    let mut client = Client::new(answer.into_body());
    client.drain();
    hub.step().await;
    drop(client);
    let answer = recovered(&hub, &format!("/s/{id}/recover?limit=2")).await;
    let cursor = answer["events"][1]["id"].as_str().unwrap().to_owned();
    assert!(cursor.starts_with(&format!("{id}.e")), "{cursor}");
    assert_eq!(answer["next"], cursor);
    let mut again = Client::new(send(&app, resuming("/", &cursor)).await.into_body());
    again.drain();
    assert_eq!((again.data(), watch.made()), (vec!["2"], 1), "nothing is paid for twice");

    // Both spellings of a cursor get the next page. Recovery and a relay spell ids like the stream's own route.
    let bare = cursor.rsplit_once('.').unwrap().1;
    for after in [&cursor, bare] {
        assert_eq!(data(&recovered(&hub, &format!("/s/{id}/recover?after={after}")).await), ["2"], "{after}");
    }
    let mut events = resuming(&format!("/s/{id}/recover"), bare);
    events.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let relay = hub.sse.relay().oneshot(resuming(&format!("/{id}"), &cursor)).await.unwrap();
    for response in [ask(&hub, events).await, relay] {
        let mut client = Client::new(response.into_body());
        client.drain();
        assert_eq!(client.data(), ["2"]);
        assert!(client.last_id().starts_with(&format!("{id}.e")));
    }

    // A published stream has a name of its own, even if the name looks generated.
    let id = StreamId::random();
    let spec = StreamSpec::new(Owner::ANONYMOUS, id.clone());
    let mut job = hub.sse.publisher().open(spec).await.unwrap();
    let sent = job.send(Event::new("1")).await.unwrap();
    hub.step().await;
    assert_eq!(recovered(&hub, &format!("/s/{id}/recover")).await["events"][0]["id"], sent.to_string());
}

#[tokio::test(start_paused = true)]
async fn json_is_given_as_it_was_written() {
    let mut hub = TestHub::new();
    let layer = hub.sse.generation().id(path());
    let written = r#"{"z":1,"a":123456789012345678901234,"f":1.10}"#;
    let steps = vec![
        chunk(format!("data: {written}\n\n")),
        chunk(format!("data: {}{}\n\n", "[".repeat(500), "]".repeat(500))),
        chunk("data: \"\\ud800\"\n\n"),
        chunk(format!("data: {{\"type\":\"completed\",\"data\":{written}}}\n\n")),
    ];
    let (_app, _client) = stream(&mut hub, "/s/a", layer, steps).await;
    let body = text(ask(&hub, request("/s/a/recover?events=true")).await).await;
    assert!(body.contains(&format!("\"terminalEventData\":{written}")), "{body}");
    assert!(body.contains(&format!("\"json\":{written}")), "{body}");
    // One event that some JSON readers cannot read does not make the whole answer unreadable.
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&answer["events"][1]["json"], &answer["events"][2]["json"]), (&Value::Null, &Value::Null));
    assert_eq!(answer["events"][2]["data"], "\"\\ud800\"");
}

#[tokio::test(start_paused = true)]
async fn g1_recovery_knows_of_an_emptied_store_like_the_layer() {
    let mut hub = TestHub::new();
    let layer = hub.sse.generation().id(path());
    let (_app, client) = stream(&mut hub, "/s/a", layer, then(numbers(2), Step::Hang)).await;
    assert_eq!(ask(&hub, request("/s/none/recover")).await.status(), StatusCode::NOT_FOUND);
    hub.store.forget();
    let events = |cursor: Option<&str>| {
        let mut request = cursor.map_or_else(|| request("/s/a/recover"), |cursor| resuming("/s/a/recover", cursor));
        request.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
        request
    };
    // No beat has reported the lost data yet.
    let json = ask(&hub, request("/s/a/recover")).await;
    assert_eq!(
        (json.status(), &json.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap())
    );
    assert_eq!(ask(&hub, events(Some(&client.last_id()))).await.status(), StatusCode::OK, "it comes again");
    assert_ne!(ask(&hub, events(None)).await.status(), StatusCode::NOT_FOUND);
    hub.advance(SECOND * 31).await;
    assert_eq!(ask(&hub, request("/s/none/recover")).await.status(), StatusCode::NOT_FOUND);
    let answer = recovered(&hub, "/s/a/recover").await;
    assert_eq!((data(&answer).len(), &answer["missing"]), (0, &json!(2)), "its producer has registered it again");

    // A store that cannot be asked does not prove that the stream is missing.
    hub.store.fail_on("beat", Fault::Refuse);
    assert_eq!(ask(&hub, request("/s/none/recover")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

/// Requests wait for a hanging store at the same time, not one after the other.
#[tokio::test(start_paused = true)]
async fn g7_many_who_ask_for_missing_streams_do_not_wait_for_each_other() {
    let mut hub = TestHub::new();
    let app = app(hub.sse.generation().id(path()), &Watch::default(), numbers(2));
    hub.advance(SECOND).await;
    hub.store.fail_on("beat", Fault::Hang);
    let start = tokio::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let app = app.clone();
        let recover = hub.sse.recover();
        tasks.spawn(async move { app.oneshot(resuming(&format!("/s/a{n}"), "e5-6")).await.unwrap().status() });
        tasks.spawn(async move { recover.oneshot(request(&format!("/a{n}/recover"))).await.unwrap().status() });
    }
    tasks.join_all().await;
    assert!(start.elapsed() < SECOND * 2, "{:?}", start.elapsed());

    // A request that is given up while it asks leaves no outdated answer to others.
    hub.store.heal();
    hub.advance(SECOND * 3).await;
    assert_eq!(ask(&hub, request("/s/none/recover")).await.status(), StatusCode::NOT_FOUND);
    hub.store.fail_on("beat", Fault::Hang);
    let (mut first, mut second) =
        (Box::pin(ask(&hub, request("/s/x/recover"))), Box::pin(ask(&hub, request("/s/y/recover"))));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    drop(first);
    assert_eq!(second.await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn recovery_answers_what_is_asked_for() {
    let mut hub = TestHub::new();
    let layer = hub.sse.generation().id(path());
    let (_app, _client) = stream(&mut hub, "/s/a", layer, then(numbers(2), Step::Hang)).await;
    for (accept, kind) in [
        ("application/json, text/event-stream;q=0", "application/json"),
        ("Text/Event-Stream", "text/event-stream"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream, application/json", "text/event-stream"),
        ("text/event-stream-foo", "application/json"),
        ("*/*", "application/json"),
    ] {
        let mut request = request("/s/a/recover");
        request.headers_mut().insert("accept", accept.parse().unwrap());
        assert_eq!(ask(&hub, request).await.headers()["content-type"], kind, "{accept}");
    }
    let head = Request::builder().method(Method::HEAD).uri("/s/a/recover").body(()).unwrap();
    let head = ask(&hub, head).await;
    assert_eq!(
        (head.status(), &head.headers()["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    for (query, names) in [
        ("after=$", "`after`"),
        ("after=1700000000000-7", "`after`"),
        ("limit=0", "`limit`"),
        ("limit=10001", "`limit`"),
        ("limit=", "`limit`"),
        ("events=1", "`events`"),
    ] {
        let response = ask(&hub, request(&format!("/s/a/recover?{query}"))).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let sentence = text(response).await;
        assert!(sentence.contains(names) && sentence.lines().count() == 1, "{sentence}");
    }
}

/// The page for authors of clients shows recovery's real answers.
#[tokio::test(start_paused = true)]
async fn the_documented_answers_are_the_real_ones() {
    let page = include_str!("../../../src/protocol/clients.md");
    let blocks = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let documented: Vec<Value> = blocks.map(|block| serde_json::from_str(block).unwrap()).collect();
    let mut hub = TestHub::new();
    let layer = || hub.sse.generation().id(path());
    let (first, end) = (chunk("data: {\"n\":1.10}\n\n"), chunk("event: completed\ndata: {\"answer\":42}\n\n"));
    let running = app(layer(), &Watch::default(), vec![first.clone(), Step::Hang]);
    let ended = app(layer(), &Watch::default(), vec![first, end]);
    let mut clients = Vec::new();
    for (app, uri) in [(&running, "/s/42"), (&ended, "/s/43")] {
        let mut client = Client::new(send(app, request(uri)).await.into_body());
        client.drain();
        clients.push(client);
    }
    hub.advance(SECOND).await;
    let real = [recovered(&hub, "/s/42/recover").await, recovered(&hub, "/s/43/recover").await];
    assert_eq!(documented.len(), real.len());
    for (documented, real) in documented.iter().zip(&real) {
        let shape = |value: &Value| -> Vec<(String, std::mem::Discriminant<Value>)> {
            value.as_object().unwrap().iter().map(|(key, value)| (key.clone(), std::mem::discriminant(value))).collect()
        };
        assert_eq!(shape(documented), shape(real), "{documented} {real}");
    }
    let event = |answer: &Value| answer["events"][0].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(event(&documented[0]), event(&real[0]));
}
