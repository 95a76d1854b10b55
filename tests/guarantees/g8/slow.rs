//! G8: slow clients, detached bodies, endless lines, and the work of one poll.

use std::{sync::atomic::Ordering, time::Duration};

use resilient_sse::{Disconnect, Owner, StreamId, StreamKey, StreamState, test_util::TestHub};

use crate::support::bodies::{
    Client, Step, Watch, app, chunk, numbered, numbers, request, resuming, send, serving, then,
};

fn path() -> impl resilient_sse::Identify {
    StreamId::path("/s/{id}")
}

fn key(id: &str) -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new(id).unwrap())
}

/// Makes chunks with one frame's worth of events each, so that a poll takes one chunk.
fn large(count: usize) -> Vec<Step> {
    (0..count).map(|n| chunk(format!("data: {n}{}\n\n", " ".repeat(64 << 10)))).collect()
}

fn trimmed<'a>(data: &[&'a str]) -> Vec<&'a str> {
    data.iter().map(|data| data.trim_end()).collect()
}

#[tokio::test(start_paused = true)]
async fn g8_a_slow_client_makes_the_inner_body_wait() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.layer().id(path()), &watch, large(100));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    for _ in 0..5 {
        assert!(client.poll());
    }
    let polls = watch.polls();
    assert!(polls <= 6, "{polls} polls of the inner body for 5 frames");
    hub.advance(Duration::from_secs(300)).await;
    assert_eq!(watch.polls(), polls, "nobody reads, nobody else follows: the inner body waits");
    client.drain();
    assert_eq!(trimmed(&client.data())[..100], numbered(100));
}

#[tokio::test(start_paused = true)]
async fn g8_on_detach_a_stalled_client_s_body_is_driven_on_and_it_continues_from_the_log() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let steps = then(large(60), Step::Hang);
    let app = app(hub.sse.generation().id(path()), &watch, steps);
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    for _ in 0..5 {
        assert!(client.poll());
    }
    let polls = watch.polls();
    hub.advance(Duration::from_secs(9)).await;
    assert_eq!(watch.polls(), polls, "not before the limit");
    hub.advance(Duration::from_secs(3)).await;
    assert!(watch.polls() >= 60, "driven on after the limit");
    assert_eq!(hub.sse.health().detached, 0, "its client is there, and will read on");
    for _ in 0..100 {
        client.drain();
        hub.step().await;
    }
    assert_eq!(trimmed(&client.data()), numbered(60), "byte for byte what it had not read");
    drop(client);
    hub.step().await;
    assert_eq!(hub.sse.health().detached, 1);
    hub.advance(Duration::from_secs(601)).await;
    let ended = hub.sse.completions().completion(&key("a")).await.unwrap().unwrap();
    assert_eq!((ended.ending.state, ended.ending.reason.as_deref()), (StreamState::Failed, Some("detach_timeout")));
    assert_eq!((hub.sse.health().detached, watch.alive()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn g8_a_stalled_client_gets_all_of_a_body_that_ended_meanwhile() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let steps = then(large(60), chunk("event: completed\ndata: done\n\n"));
    let app = app(hub.sse.generation().id(path()), &watch, steps);
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    for _ in 0..5 {
        assert!(client.poll());
    }
    hub.advance(Duration::from_secs(15)).await;
    assert_eq!(watch.alive(), 0, "the body ran to its end");
    client.finish(&mut hub).await;
    let mut expected = numbered(60);
    expected.push("done".into());
    assert_eq!(trimmed(&client.data()), expected);
}

#[tokio::test(start_paused = true)]
async fn g8_a_stalled_client_gets_what_was_made_before_a_stop() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, then(large(20), Step::Hang));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    assert!(client.poll());
    hub.advance(Duration::from_secs(15)).await;
    hub.sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new("a").unwrap()).await.unwrap();
    hub.advance(Duration::from_secs(1)).await;
    client.finish(&mut hub).await;
    assert_eq!(trimmed(&client.data())[..20], numbered(20));
    assert_eq!(client.names().last(), Some(&"cancelled"));
}

#[tokio::test(start_paused = true)]
async fn g8_where_others_follow_a_stalled_client_does_not_hold_them_up() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let steps = then(large(60), Step::Hang);
    let app = app(hub.sse.layer().id(path()), &watch, steps);
    let mut stalled = Client::new(send(&app, request("/s/a")).await.into_body());
    for _ in 0..3 {
        assert!(stalled.poll());
    }
    let mut other = Client::new(send(&app, request("/s/a")).await.into_body());
    other.drain();
    for _ in 0..12 {
        hub.advance(Duration::from_secs(1)).await;
        other.drain();
    }
    for _ in 0..100 {
        hub.step().await;
        other.drain();
        stalled.drain();
    }
    assert_eq!(watch.made(), 1, "one producer");
    assert_eq!(trimmed(&other.data()), numbered(60));
    assert_eq!(trimmed(&stalled.data()), numbered(60));
    drop(stalled);
    hub.advance(Duration::from_secs(5)).await;
    assert_eq!(watch.alive(), 1, "its own client went, and another one still reads");
    drop(other);
    hub.step().await;
    assert_eq!(watch.alive(), 0, "the last reader went, and the route interrupts");
}

/// The same where the others follow on another node.
#[tokio::test(start_paused = true)]
async fn g8_a_stalled_client_does_not_hold_up_who_follows_on_another_node() {
    let mut hub = TestHub::new();
    let mut elsewhere = TestHub::on(hub.store.clone(), resilient_sse::Builder::anonymous).unwrap();
    let watch = Watch::default();
    let steps = then(large(60), Step::Hang);
    let here = app(hub.sse.layer().id(path()), &watch, steps.clone());
    let there = app(elsewhere.sse.layer().id(path()), &watch, steps);
    let mut stalled = Client::new(send(&here, request("/s/a")).await.into_body());
    for _ in 0..3 {
        assert!(stalled.poll());
    }
    let polls = watch.polls();
    hub.advance(Duration::from_secs(30)).await;
    assert_eq!(watch.polls(), polls, "nobody waits");
    let mut other = Client::new(send(&there, request("/s/a")).await.into_body());
    for _ in 0..12 {
        other.drain();
        hub.advance(Duration::from_secs(1)).await;
        elsewhere.step().await;
    }
    for _ in 0..100 {
        hub.step().await;
        other.drain();
        stalled.drain();
    }
    assert_eq!(watch.made(), 1, "one producer");
    assert_eq!(trimmed(&other.data()), numbered(60));
    assert_eq!(trimmed(&stalled.data()), numbered(60));
}

#[tokio::test(start_paused = true)]
async fn g8_a_client_that_stalls_on_an_earlier_run_does_not_hold_up_the_new_one() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.layer().id(path()), &watch, then(large(20), Step::Hang));
    let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
    while first.data().is_empty() {
        assert!(first.poll());
    }
    let (cursor, seen) = (first.last_id(), first.data().len());
    first.drain();
    drop(first);
    hub.step().await;
    let mut stalled = Client::new(send(&app, resuming("/s/a", &cursor)).await.into_body());
    assert!(stalled.poll(), "something of the run before");
    let mut other = Client::new(send(&app, request("/s/a")).await.into_body());
    for _ in 0..12 {
        hub.advance(Duration::from_secs(1)).await;
        other.drain();
    }
    for _ in 0..100 {
        hub.step().await;
        other.drain();
    }
    assert_eq!(watch.made(), 2, "one more run");
    assert_eq!(trimmed(&other.data()), numbered(20));
    for _ in 0..100 {
        hub.step().await;
        stalled.drain();
    }
    let expected: Vec<_> =
        numbered(20).into_iter().skip(seen).chain(["restart".to_owned()]).chain(numbered(20)).collect();
    let names = stalled.names();
    let told: Vec<_> = trimmed(&stalled.data())
        .into_iter()
        .zip(&names)
        .map(|(data, name)| if *name == "restart" { "restart".to_owned() } else { data.to_owned() })
        .collect();
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn g8_a_body_without_its_client_runs_for_at_most_the_route_s_time() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let layer = hub.sse.layer().id(path()).on_disconnect(Disconnect::Detach { at_most: Duration::from_secs(60) });
    let app = app(layer, &watch, then(numbers(3), Step::Hang));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    assert!(client.poll());
    drop(client);
    hub.advance(Duration::from_secs(59)).await;
    assert_eq!((watch.alive(), hub.sse.health().detached), (1, 1));
    hub.advance(Duration::from_secs(2)).await;
    assert_eq!((watch.alive(), hub.sse.health().detached), (0, 0));
    let mut late = Client::new(send(&app, request("/s/a")).await.into_body());
    late.finish(&mut hub).await;
    assert_eq!(late.data(), ["0", "1", "2", r#"{"reason":"detach_timeout"}"#]);
    assert_eq!(late.names().last(), Some(&"failed"));
}

#[tokio::test(start_paused = true)]
async fn g8_an_endless_line_and_an_oversized_event_fail_the_stream() {
    let endless: Vec<_> = std::iter::once(chunk("data: 0\n\ndata: "))
        .chain(std::iter::repeat_n(chunk("x".repeat(1000)), 10_000))
        .collect();
    let oversized = vec![chunk(format!("data: 0\n\ndata: {}\n\n", "x".repeat(5000)))];
    let many_lines = vec![chunk(format!("data: 0\n\n{}\n", "data: x\n".repeat(1000)))];
    for steps in [endless, oversized, many_lines] {
        let mut hub = TestHub::with(|builder| builder.anonymous().max_event_bytes(4096)).unwrap();
        let watch = Watch::default();
        let app = app(hub.sse.generation().id(path()), &watch, steps);
        let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
        client.finish(&mut hub).await;
        assert_eq!(client.data(), ["0", r#"{"reason":"event_too_large"}"#]);
        assert_eq!(client.names()[1], "failed");
        assert!(watch.polls() < 20, "{} polls: not read on", watch.polls());
        assert_eq!(watch.alive(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_poll_takes_at_most_64_events_and_frames_are_bounded() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let many: String = (0..1000).map(|n| format!("data: {n}\n\n")).collect();
    let app = app(hub.sse.generation().id(path()), &watch, vec![chunk(many), Step::Hang]);
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.drain();
    assert_eq!(client.data(), numbered(1000));
    for frame in &client.frames {
        let events = frame.windows(6).filter(|window| window == b"data: ").count();
        assert!(events <= 65, "{events} events in a frame");
    }
    let mut follower = Client::new(send(&app, resuming("/s/a", "junk")).await.into_body());
    follower.drain();
    assert_eq!(follower.data()[1..], numbered(1000));
    assert!(follower.frames.iter().all(|frame| frame.len() <= 256 << 10));
    hub.step().await;
}

#[tokio::test(start_paused = true)]
async fn g8_a_body_that_is_always_ready_does_not_starve_others() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let comments: Vec<_> = std::iter::repeat_n(chunk("\n"), 100_000).collect();
    let app = app(hub.sse.generation().id(path()), &watch, comments);
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    assert!(client.poll(), "connected");
    let before = watch.polls();
    assert!(!client.poll(), "nothing to say");
    assert!(watch.polls() - before <= 100, "one poll takes a bounded number of frames");
    drop(client);
    tokio::task::yield_now().await;
    assert!(watch.polls() < 100_000, "a driven body yields too");
}

#[tokio::test(start_paused = true)]
async fn g8_metadata_has_a_limit() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let bodies = watch.clone();
    let kept = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = kept.clone();
    let app = serving(hub.sse.generation().id(path()), move |request| {
        let context = request.extensions().get::<resilient_sse::StreamContext>().unwrap().clone();
        for n in 0..1000 {
            if context.metadata(format!("{n}"), "x".repeat(100)).is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
        crate::support::bodies::events(bodies.body(numbers(1)))
    });
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.finish(&mut hub).await;
    let held = hub.sse.registry().stream(&key("a")).await.unwrap().unwrap().metadata;
    let bytes: usize = held.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!(held.len(), kept.load(Ordering::SeqCst));
    assert!((3900..=4096).contains(&bytes), "{bytes}");
}
