//! Settings that say "for ever", and those that cannot work (guarantees G8, G11).

use std::time::Duration;

use resilient_sse::{Builder, Event, MemoryStore, Owner, ResilientSse, StreamId, StreamSpec, test_util::TestHub};

use crate::support::{Client, Step, Watch, app, chunk, request, resuming, send};

type Setter = (&'static str, fn(Builder, Duration) -> Builder);

const DURATIONS: [Setter; 12] = [
    ("heartbeat", Builder::heartbeat),
    ("stale", |builder, time| builder.stale(time).lifetime(Duration::MAX)),
    ("sweep", Builder::sweep),
    ("lifetime", Builder::lifetime),
    ("recovery_window", Builder::recovery_window),
    ("store_limit", Builder::store_limit),
    ("open_limit", Builder::open_limit),
    ("terminal_limit", Builder::terminal_limit),
    ("stall", Builder::stall),
    ("drain", Builder::drain),
    ("probe_limit", Builder::probe_limit),
    ("relay_wait", Builder::relay_wait),
];

/// Goes once through all that looks at a clock.
async fn live(mut hub: TestHub) {
    let watch = Watch::default();
    let steps =
        vec![chunk("data: 0\n\n"), Step::Sleep(Duration::from_secs(40)), chunk("event: completed\ndata: 1\n\n")];
    let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, steps);
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
    hub.shut_down_on(std::future::ready(()));
    drop(relay);
    hub.advance(Duration::from_secs(1)).await;
    assert!(hub.report().is_some());
}

#[tokio::test(start_paused = true)]
async fn g11_a_duration_without_end_overflows_nothing() {
    for (name, set) in DURATIONS {
        println!("{name}");
        live(TestHub::with(|builder| set(builder.anonymous(), Duration::MAX)).unwrap()).await;
    }
    let all =
        |builder: Builder| DURATIONS.iter().fold(builder.anonymous(), |builder, (_, set)| set(builder, Duration::MAX));
    live(TestHub::with(all).unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn g11_numbers_without_end_overflow_nothing() {
    let all = |builder: Builder| {
        let builder = builder.anonymous().max_events(usize::MAX).max_bytes(usize::MAX).max_detached(usize::MAX);
        builder.recorder_bytes(usize::MAX).max_event(usize::MAX)
    };
    live(TestHub::with(all).unwrap()).await;
}

#[test]
fn a_setting_that_cannot_work_is_named() {
    let build = |setup: fn(Builder) -> Builder| setup(ResilientSse::builder(MemoryStore::new())).build();
    let zero: [fn(Builder) -> Builder; 8] = [
        |builder| builder.heartbeat(Duration::ZERO),
        |builder| builder.stale(Duration::ZERO),
        |builder| builder.sweep(Duration::ZERO),
        |builder| builder.lifetime(Duration::ZERO),
        |builder| builder.recovery_window(Duration::ZERO),
        |builder| builder.store_limit(Duration::ZERO),
        |builder| builder.max_events(0),
        |builder| builder.max_event(0),
    ];
    for setup in zero {
        assert!(build(setup).unwrap_err().to_string().contains("must be at least"));
    }
    let error = build(|builder| builder.max_event(9 << 20)).unwrap_err().to_string();
    assert!(error.contains("`max_event`") && error.contains("`max_bytes`"), "{error}");
    assert!(build(|builder| builder.max_event(9 << 20).max_bytes(9 << 20)).is_ok());
}
