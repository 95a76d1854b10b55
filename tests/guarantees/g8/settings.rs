//! Settings that say "for ever", and those that cannot work (guarantees G8, G11).

use std::time::Duration;

use resilient_sse::{
    Builder, Disconnect, Event, MemoryStore, Owner, ResilientSse, ResilientSseLayer, StreamId, StreamKey, StreamSpec,
    test_util::TestHub,
};

use crate::support::bodies::{Client, Step, Watch, app, chunk, request, resuming, send};

type Setter = (&'static str, fn(Builder, Duration) -> Builder);

const DURATIONS: [Setter; 12] = [
    ("heartbeat", Builder::heartbeat),
    ("stale_after", |builder, time| builder.stale_after(time).lifetime(Duration::MAX)),
    ("sweep_every", Builder::sweep_every),
    ("lifetime", Builder::lifetime),
    ("recovery_window", Builder::recovery_window),
    ("store_limit", Builder::store_limit),
    ("open_limit", Builder::open_limit),
    ("terminal_limit", Builder::terminal_limit),
    ("stall_limit", Builder::stall_limit),
    ("drain_limit", Builder::drain_limit),
    ("probe_limit", Builder::probe_limit),
    ("relay_wait", Builder::relay_wait),
];

/// Runs everything once that reads a clock.
async fn live(mut hub: TestHub, grace: Duration) {
    let watch = Watch::default();
    let steps =
        vec![chunk("data: 0\n\n"), Step::Sleep(Duration::from_secs(40)), chunk("event: completed\ndata: 1\n\n")];
    let layer =
        hub.sse.generation().id(StreamId::path("/s/{id}")).on_disconnect(Disconnect::Detach { at_most: Duration::MAX });
    let app = app(layer.grace(grace), &watch, steps);
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.drain();
    let cursor = client.last_id();
    hub.advance(Duration::from_secs(15)).await;
    drop(client);
    let mut again = Client::new(send(&app, resuming("/s/a", &cursor)).await.into_body());
    again.finish(&mut hub).await;
    assert_eq!(again.data(), ["1"]);
    let mut job =
        hub.sse.publisher().open(StreamSpec::new(Owner::ANONYMOUS, StreamId::new("b").unwrap())).await.unwrap();
    job.send(Event::new("1")).await.unwrap();
    drop(job);
    let relay = tower::ServiceExt::oneshot(hub.sse.relay(), request("/none")).await.unwrap();
    let mut relay = Client::new(relay.into_body());
    relay.drain();
    hub.advance(Duration::from_secs(31)).await;
    assert!(hub.sse.health().guarded);
    assert!(hub.sse.registry().stale_streams(Duration::MAX).await.unwrap().is_empty());
    let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    assert!(hub.sse.completions().events(&key, None, usize::MAX).await.unwrap().is_some());
    hub.shut_down_on(std::future::ready(()));
    drop(relay);
    hub.advance(Duration::from_secs(1)).await;
    assert!(hub.report().is_some());
}

#[tokio::test(start_paused = true)]
async fn g11_a_duration_without_end_overflows_nothing() {
    for (name, set) in DURATIONS {
        println!("{name}");
        live(TestHub::with(|builder| set(builder.anonymous(), Duration::MAX)).unwrap(), Duration::ZERO).await;
    }
    let all =
        |builder: Builder| DURATIONS.iter().fold(builder.anonymous(), |builder, (_, set)| set(builder, Duration::MAX));
    live(TestHub::with(all).unwrap(), Duration::MAX).await;
}

#[tokio::test(start_paused = true)]
async fn g11_numbers_without_end_overflow_nothing() {
    let all = |builder: Builder| {
        let builder = builder.anonymous().max_log_events(usize::MAX).max_log_bytes(usize::MAX).max_detached(usize::MAX);
        builder.recorder_bytes(usize::MAX).max_event_bytes(usize::MAX)
    };
    live(TestHub::with(all).unwrap(), Duration::MAX).await;
}

#[tokio::test(start_paused = true)]
async fn g8_a_route_has_limits_of_its_own() {
    let mut hub = TestHub::with(|builder| builder.anonymous().max_log_events(50)).unwrap();
    let watch = Watch::default();
    let path = || StreamId::path("/s/{id}");
    let hang = || crate::support::bodies::then(crate::support::bodies::numbers(40), Step::Hang);
    let small = app(hub.sse.generation().id(path()).max_log_events(5), &watch, hang());
    let tight = app(hub.sse.generation().id(path()).max_log_bytes(200), &watch, hang());
    let plain = app(hub.sse.generation().id(path()), &watch, hang());
    for (id, app, held) in [("small", small, 5..8), ("tight", tight, 5..8), ("plain", plain, 40..41)] {
        let mut client = Client::new(send(&app, request(&format!("/s/{id}"))).await.into_body());
        client.drain();
        hub.step().await;
        let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new(id).unwrap());
        let page = hub.sse.completions().events(&key, None, 100).await.unwrap().unwrap();
        let events =
            page.records.iter().filter(|record| matches!(record.kind, resilient_sse::RecordKind::Events(_))).count();
        assert!(held.contains(&events), "{id}: {events}");
    }
}

#[tokio::test(start_paused = true)]
async fn g3_a_route_has_a_window_of_its_own() {
    let mut hub = TestHub::with(|builder| builder.anonymous().sweep_every(Duration::from_secs(1))).unwrap();
    let watch = Watch::default();
    let layer = || hub.sse.generation().id(StreamId::path("/s/{id}"));
    let brief = app(layer().recovery_window(Duration::from_secs(20)), &watch, vec![chunk("data: 0\n\n")]);
    let long = app(layer().recovery_window(Duration::MAX), &watch, vec![chunk("data: 0\n\n")]);
    for (id, app) in [("brief", &brief), ("long", &long)] {
        let mut client = Client::new(send(app, request(&format!("/s/{id}"))).await.into_body());
        client.finish(&mut hub).await;
    }
    let status = async |id: &str| {
        let recover = hub.sse.recover();
        tower::ServiceExt::oneshot(recover, request(&format!("/{id}/recover"))).await.unwrap().status().as_u16()
    };
    assert_eq!((status("brief").await, status("long").await), (200, 200));
    tokio::time::advance(Duration::from_secs(21)).await;
    assert_eq!((status("brief").await, status("long").await), (404, 200));
    tokio::time::advance(Duration::from_secs(86_400)).await;
    assert_eq!(status("long").await, 200);
}

#[tokio::test(start_paused = true)]
async fn g6_a_route_has_a_lifetime_of_its_own() {
    let mut hub = TestHub::with(|builder| {
        builder.anonymous().stale_after(Duration::from_secs(3)).sweep_every(Duration::from_secs(1))
    })
    .unwrap();
    let watch = Watch::default();
    let steps = || crate::support::bodies::then(vec![chunk("data: 0\n\n")], Step::Hang);
    let brief = app(hub.sse.layer().id(StreamId::path("/s/{id}")).lifetime(Duration::from_secs(5)), &watch, steps());
    let usual = app(hub.sse.layer().id(StreamId::path("/s/{id}")), &watch, steps());
    for (id, app) in [("brief", &brief), ("usual", &usual)] {
        let mut client = Client::new(send(app, request(&format!("/s/{id}"))).await.into_body());
        client.drain();
        hub.step().await;
    }
    hub.advance(Duration::from_secs(10)).await;
    let held = hub.sse.streams().list(&Owner::ANONYMOUS).await.unwrap();
    let ids: Vec<_> = held.iter().map(|info| info.key.id.as_str()).collect();
    assert_eq!(ids, ["usual"], "an interrupted stream that nobody runs again");
}

#[tokio::test(start_paused = true)]
async fn g10_a_route_has_a_heartbeat_of_its_own() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let layer = || hub.sse.generation().id(StreamId::path("/s/{id}"));
    let quick = app(layer().heartbeat(Duration::from_secs(2)), &watch, vec![Step::Hang]);
    let usual = app(layer(), &watch, vec![Step::Hang]);
    let mut clients = Vec::new();
    for (id, app, seconds) in [("quick", &quick, "2"), ("usual", &usual, "15")] {
        for _ in 0..2 {
            let response = send(app, request(&format!("/s/{id}"))).await;
            assert_eq!(response.headers()["x-stream-heartbeat"], seconds, "{id}: its client's watchdog is set by it");
            let mut client = Client::new(response.into_body());
            client.drain();
            clients.push(client);
        }
    }
    for _ in 0..50 {
        hub.advance(Duration::from_millis(250)).await;
        clients.iter_mut().for_each(Client::drain);
    }
    let heard = clients.iter().map(|client| String::from_utf8_lossy(&client.bytes).matches(": heartbeat\n").count());
    assert_eq!(heard.collect::<Vec<_>>(), [6, 6, 0, 0], "a producer's client and a follower each, in 12.5 s");
}

#[test]
fn a_route_s_setting_that_cannot_work_panics_and_is_named() {
    let (sse, _guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build().unwrap();
    type Bad = (&'static str, fn(ResilientSseLayer) -> ResilientSseLayer);
    let bad: [Bad; 6] = [
        ("`heartbeat`", |layer| layer.heartbeat(Duration::ZERO)),
        ("`lifetime`", |layer| layer.lifetime(Duration::ZERO)),
        ("`stale_after`", |layer| layer.lifetime(Duration::from_secs(29))),
        ("`recovery_window`", |layer| layer.recovery_window(Duration::from_micros(999))),
        ("`max_log_events`", |layer| layer.max_log_events(0)),
        ("`max_log_bytes`", |layer| layer.max_log_bytes(0)),
    ];
    for (name, set) in bad {
        let layer = sse.generation();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| set(layer))).expect_err(name);
        let text =
            panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        assert!(text.as_ref().is_some_and(|text| text.contains(name)), "{name}: {text:?}");
    }
    let _ =
        sse.generation().grace(Duration::ZERO).lifetime(Duration::MAX).heartbeat(Duration::MAX).grace(Duration::MAX);
}

#[test]
fn a_setting_that_cannot_work_is_named() {
    let build = |setup: fn(Builder) -> Builder| setup(ResilientSse::builder(MemoryStore::new())).build();
    let zero: [fn(Builder) -> Builder; 8] = [
        |builder| builder.heartbeat(Duration::ZERO),
        |builder| builder.stale_after(Duration::ZERO),
        |builder| builder.sweep_every(Duration::ZERO),
        |builder| builder.lifetime(Duration::ZERO),
        |builder| builder.recovery_window(Duration::ZERO),
        |builder| builder.store_limit(Duration::ZERO),
        |builder| builder.max_log_events(0),
        |builder| builder.max_event_bytes(0),
    ];
    for setup in zero {
        assert!(build(setup).unwrap_err().to_string().contains("must be at least"));
    }
    let error = build(|builder| builder.max_event_bytes(9 << 20)).unwrap_err().to_string();
    assert!(error.contains("`max_event_bytes`") && error.contains("`max_log_bytes`"), "{error}");
    assert!(build(|builder| builder.max_event_bytes(9 << 20).max_log_bytes(9 << 20)).is_ok());
}
