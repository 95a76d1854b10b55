//! G4, G8: the readers decide whether the work goes on, not the client whose request began it.

use std::time::Duration;

use http_body_util::BodyExt as _;
use resilient_sse::{
    Builder, Disconnect, Owner, ResilientSseLayer, StreamId, StreamKey, StreamState,
    test_util::{FaultStore, TestHub},
};

use tower::ServiceExt as _;

use crate::support::bodies::{
    App, Client, Step, Watch, app, chunk, events, numbered, request, resuming, send, serving_async,
};

const SECOND: Duration = Duration::from_secs(1);
const POLICIES: [Disconnect; 3] =
    [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::Detach { at_most: Duration::from_secs(60) }];

fn path() -> impl resilient_sse::Identify {
    StreamId::path("/s/{id}")
}

fn key() -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap())
}

/// Makes events one at a time.
fn ticking(count: usize, every: Duration) -> Vec<Step> {
    let event = |n| [chunk(format!("data: {n}\n\n")), Step::Sleep(every)];
    (0..count).flat_map(event).chain([chunk("event: completed\ndata: done\n\n")]).collect()
}

/// Returns the state and the reason of the stream `a`.
async fn standing(hub: &TestHub) -> (StreamState, Option<String>) {
    let info = hub.sse.registry().stream(&key()).await.unwrap().unwrap();
    (info.state, info.ended.and_then(|ended| ended.ending.reason).map(Into::into))
}

type Reader = Client<resilient_sse::ResilientSseBody<crate::support::bodies::Script>>;

async fn reader(app: &App) -> Reader {
    let mut client = Client::new(send(app, request("/s/a")).await.into_body());
    client.drain();
    client
}

/// Two nodes on one store, with the same route.
fn nodes(route: impl Fn(&TestHub) -> ResilientSseLayer, steps: &[Step]) -> (Vec<TestHub>, Vec<App>, Watch) {
    let watch = Watch::default();
    let here = TestHub::new();
    let there = TestHub::on(here.store.clone(), Builder::anonymous).unwrap();
    let hubs = vec![here, there];
    let apps = hubs.iter().map(|hub| app(route(hub), &watch, steps.to_vec())).collect();
    (hubs, apps, watch)
}

async fn advance(hubs: &mut [TestHub], time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(Duration::from_millis(250));
        for hub in &mut *hubs {
            hub.step().await;
        }
        tokio::time::advance(step).await;
        for hub in &mut *hubs {
            hub.step().await;
        }
        left -= step;
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_client_that_came_back_is_a_reader() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let layer = hub.sse.layer().id(path()).on_disconnect(Disconnect::Detach { at_most: SECOND * 60 });
    let app = app(layer, &watch, ticking(40, SECOND * 3));
    let mut client = reader(&app).await;
    hub.advance(SECOND).await;
    let cursor = client.last_id();
    drop(client);
    client = Client::new(send(&app, resuming("/s/a", &cursor)).await.into_body());
    client.finish(&mut hub).await;
    assert_eq!(client.names().last(), Some(&"completed"), "it was read for all but a moment of two minutes");
    assert_eq!(client.data()[..39], numbered(40)[1..]);
}

#[tokio::test(start_paused = true)]
async fn g8_a_client_that_stalled_once_is_a_reader() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let layer = hub.sse.layer().id(path()).on_disconnect(Disconnect::Detach { at_most: SECOND * 60 });
    let app = app(layer, &watch, ticking(60, SECOND * 3));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    assert!(client.poll());
    hub.advance(SECOND * 12).await;
    client.finish(&mut hub).await;
    assert_eq!(client.names().last(), Some(&"completed"), "it never left");
    assert_eq!(client.data()[..60], numbered(60));
}

/// The same for one that does not read for longer than the work may run without readers.
#[tokio::test(start_paused = true)]
async fn g8_a_client_that_is_there_and_does_not_read_is_a_reader() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let layer = hub.sse.layer().id(path()).on_disconnect(Disconnect::Detach { at_most: SECOND * 60 });
    let app = app(layer, &watch, ticking(60, SECOND * 3));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    assert!(client.poll());
    hub.advance(SECOND * 300).await;
    assert_eq!(standing(&hub).await, (StreamState::Completed, None));
    client.finish(&mut hub).await;
    assert_eq!(client.data()[..60], numbered(60));
}

#[tokio::test(start_paused = true)]
async fn g8_only_the_time_without_any_reader_counts() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let layer = hub.sse.layer().id(path()).on_disconnect(Disconnect::Detach { at_most: SECOND * 60 });
    let app = app(layer, &watch, ticking(1000, SECOND));
    let mut client = reader(&app).await;
    for _ in 0..4 {
        drop(client);
        hub.advance(SECOND * 59).await;
        assert_eq!(hub.sse.health().detached, 1);
        client = reader(&app).await;
        hub.step().await;
        assert_eq!((watch.alive(), hub.sse.health().detached), (1, 0));
    }
    drop(client);
    hub.advance(SECOND * 59).await;
    assert_eq!(watch.alive(), 1);
    hub.advance(SECOND * 2).await;
    assert_eq!((watch.alive(), watch.made(), hub.sse.health().detached), (0, 1, 0));
    assert_eq!(standing(&hub).await, (StreamState::Failed, Some("detach_timeout".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn g8_the_work_goes_on_for_whoever_reads_on_this_node() {
    for policy in POLICIES {
        let mut hub = TestHub::new();
        let watch = Watch::default();
        let app = app(hub.sse.layer().id(path()).on_disconnect(policy), &watch, ticking(10, SECOND));
        let first = reader(&app).await;
        let mut second = reader(&app).await;
        hub.advance(SECOND * 3).await;
        drop(first);
        assert_eq!(watch.alive(), 1, "{policy:?}");
        second.finish(&mut hub).await;
        assert_eq!(second.data()[..10], numbered(10), "{policy:?}");
        assert_eq!((second.names().last(), watch.made()), (Some(&"completed"), 1), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g8_the_work_goes_on_for_whoever_reads_on_another_node() {
    for policy in POLICIES {
        let route = |hub: &TestHub| hub.sse.layer().id(path()).on_disconnect(policy);
        let (mut hubs, apps, watch) = nodes(route, &ticking(100, SECOND));
        let first = reader(&apps[0]).await;
        let mut second = reader(&apps[1]).await;
        advance(&mut hubs, SECOND * 3).await;
        drop(first);
        advance(&mut hubs, SECOND * 30).await;
        assert_eq!((watch.alive(), hubs[0].sse.health().detached), (1, 0), "{policy:?}");
        second.drain();
        assert!(second.data().len() >= 30, "{policy:?}: {:?}", second.data());
        drop(second);
        // The producing node has to ask for another node's readers; give it time.
        advance(&mut hubs, SECOND * 2).await;
        let (alive, state) = match policy {
            Disconnect::Interrupt => (0, StreamState::Interrupted),
            Disconnect::Cancel => (0, StreamState::Cancelled),
            Disconnect::Detach { .. } => (1, StreamState::Active),
            other => panic!("what does {other:?} do?"),
        };
        assert_eq!((watch.alive(), watch.made(), standing(&hubs[0]).await.0), (alive, 1, state), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g8_where_nobody_else_reads_a_plain_route_ends_with_its_client() {
    for (policy, state) in
        [(Disconnect::Interrupt, StreamState::Interrupted), (Disconnect::Cancel, StreamState::Cancelled)]
    {
        let hub = TestHub::new();
        let watch = Watch::default();
        let app = app(hub.sse.layer().id(path()).on_disconnect(policy), &watch, ticking(10, SECOND));
        let client = reader(&app).await;
        drop(client);
        assert_eq!(watch.alive(), 0, "within the drop");
        assert_eq!(standing(&hub).await.0, state);
    }
}

#[tokio::test(start_paused = true)]
async fn g8_the_last_of_several_readers_ends_the_work() {
    for policy in [Disconnect::Interrupt, Disconnect::Cancel] {
        for by_followers in [false, true] {
            let mut hub = TestHub::new();
            let watch = Watch::default();
            let app = app(hub.sse.layer().id(path()).on_disconnect(policy), &watch, ticking(100, SECOND));
            let mut readers = vec![reader(&app).await, reader(&app).await, reader(&app).await];
            if by_followers {
                readers.reverse();
            }
            for _ in 0..3 {
                hub.advance(SECOND * 5).await;
                assert_eq!(watch.alive(), 1);
                readers.remove(0);
            }
            hub.step().await;
            assert_eq!(watch.alive(), 0);
            let expected = match policy {
                Disconnect::Cancel => (StreamState::Cancelled, Some("disconnected".to_owned())),
                _ => (StreamState::Interrupted, None),
            };
            assert_eq!(standing(&hub).await, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_reload_is_no_departure() {
    for policy in [Disconnect::Interrupt, Disconnect::Cancel] {
        let mut hub = TestHub::new();
        let watch = Watch::default();
        let layer = hub.sse.generation().id(path()).on_disconnect(policy);
        let app = app(layer, &watch, ticking(100, SECOND));
        let mut client = reader(&app).await;
        for _ in 0..3 {
            drop(client);
            hub.advance(Duration::from_millis(1900)).await;
            assert_eq!((watch.alive(), hub.sse.health().detached), (1, 1), "{policy:?}");
            client = reader(&app).await;
            hub.advance(SECOND * 5).await;
            assert_eq!((watch.made(), hub.sse.health().detached), (1, 0), "{policy:?}");
        }
        client.drain();
        assert_eq!(client.names(), vec!["message"; client.data().len()], "{policy:?}: one run, and nothing else");
        drop(client);
        hub.advance(SECOND * 2 + Duration::from_millis(250)).await;
        assert_eq!((watch.alive(), hub.sse.health().detached), (0, 0), "{policy:?}");
        let state = if policy == Disconnect::Cancel { StreamState::Cancelled } else { StreamState::Interrupted };
        assert_eq!(standing(&hub).await.0, state);
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_feed_is_read_on_after_a_reload_and_by_each_of_its_tabs() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.feed().id(path()), &watch, ticking(100, SECOND));
    let first = reader(&app).await;
    let mut second = reader(&app).await;
    hub.advance(SECOND * 3).await;
    drop(first);
    hub.advance(SECOND * 3).await;
    second.drain();
    let (cursor, seen) = (second.last_id(), second.data().len());
    drop(second);
    hub.advance(SECOND).await;
    let mut again = Client::new(send(&app, resuming("/s/a", &cursor)).await.into_body());
    hub.advance(SECOND * 3).await;
    again.drain();
    let more = again.data().len();
    assert!(more >= 3, "{:?}", again.data());
    assert_eq!(again.data(), numbered(100)[seen..seen + more]);
    assert_eq!((watch.made(), again.names().contains(&"restart")), (1, false));
}

/// React's strict mode runs an effect, undoes it, and runs it again.
#[tokio::test(start_paused = true)]
async fn g8_a_client_that_mounts_twice_keeps_its_stream() {
    for policy in [Disconnect::Interrupt, Disconnect::Cancel] {
        let mut hub = TestHub::new();
        let watch = Watch::default();
        let app = app(hub.sse.layer().id(path()).on_disconnect(policy), &watch, ticking(5, SECOND));
        let first = reader(&app).await;
        tokio::time::advance(Duration::from_millis(5)).await;
        let mut second = reader(&app).await;
        tokio::time::advance(Duration::from_millis(1)).await;
        drop(first);
        second.finish(&mut hub).await;
        assert_eq!((second.names().last(), watch.made()), (Some(&"completed"), 1), "{policy:?}");
    }
}

/// A body that only reads events from before a new run does not read that run.
#[tokio::test(start_paused = true)]
async fn g8_a_client_that_reads_what_it_missed_does_not_follow_itself() {
    let large = |count| (0..count).map(|n| chunk(format!("data: {n}{}\n\n", " ".repeat(64 << 10)))).collect();
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.layer().id(path()), &watch, large(400));
    let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
    for _ in 0..8 {
        assert!(first.poll());
    }
    let cursor = first.seen[1].id.clone();
    drop(first);
    let polls = watch.polls();
    let mut again = Client::new(send(&app, resuming("/s/a", &cursor)).await.into_body());
    assert!(again.poll());
    assert_eq!(hub.sse.health().followers, 0);
    hub.advance(SECOND * 60).await;
    assert_eq!(watch.polls(), polls, "nobody else follows: the inner body waits");
    again.finish(&mut hub).await;
    assert_eq!(again.names().iter().filter(|name| **name == "gap").count(), 0);
    assert_eq!(again.names().iter().filter(|name| **name == "restart").count(), 1);
}

/// A follower waited for its stream before this node produced it.
#[tokio::test(start_paused = true)]
async fn g8_a_reader_that_was_there_before_the_producer_counts() {
    let store = FaultStore::new(resilient_sse::MemoryStore::starting_at(1_700_000_000_000));
    let mut hub = TestHub::on(store, Builder::anonymous).unwrap();
    let watch = Watch::default();
    let relay = hub.sse.relay().id(path()).oneshot(request("/s/a")).await.unwrap();
    let mut relay = Box::pin(relay.into_body());
    let mut relayed = Vec::new();
    let mut read = async |hub: &mut TestHub| {
        hub.step().await;
        while let Some(Some(Ok(frame))) = futures_util::FutureExt::now_or_never(relay.frame()) {
            relayed.extend_from_slice(&frame.into_data().unwrap());
        }
    };
    read(&mut hub).await;
    let app = app(hub.sse.layer().id(path()), &watch, ticking(10, SECOND));
    let client = reader(&app).await;
    read(&mut hub).await;
    drop(client);
    for _ in 0..12 {
        assert_eq!(watch.made(), 1);
        hub.advance(SECOND).await;
        read(&mut hub).await;
    }
    let relayed = String::from_utf8(relayed).unwrap();
    assert!(relayed.contains("event: completed"), "{relayed}");
}

/// A handler that has not answered is work too: time without readers before its answer adds to the time after it.
#[tokio::test(start_paused = true)]
async fn g8_the_time_before_the_first_byte_counts_as_the_rest() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let bodies = watch.clone();
    let layer = hub.sse.layer().id(path()).on_disconnect(Disconnect::Detach { at_most: SECOND * 60 });
    let app = serving_async(layer, move |_| {
        let bodies = bodies.clone();
        async move {
            tokio::time::sleep(SECOND * 100).await;
            events(bodies.body(ticking(1000, SECOND)))
        }
    });
    let first = tokio::spawn(app.clone().oneshot(request("/s/a")));
    hub.advance(SECOND).await;
    first.abort();
    hub.step().await;
    assert_eq!(hub.sse.health().detached, 1);
    hub.advance(SECOND * 30).await;
    let second = tokio::spawn(app.clone().oneshot(request("/s/a")));
    hub.advance(SECOND * 40).await;
    assert_eq!(hub.sse.health().detached, 0, "somebody waits for it");
    drop(second.await.unwrap().unwrap());
    hub.advance(SECOND * 58).await;
    assert_eq!((watch.alive(), hub.sse.health().detached), (1, 1), "it has answered");
    hub.advance(SECOND * 3).await;
    assert_eq!((watch.alive(), hub.sse.health().detached), (0, 0), "a minute after the last reader left");
    assert_eq!(standing(&hub).await, (StreamState::Failed, Some("detach_timeout".to_owned())));
}

/// A small random generator, so that a failure can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Clients on two nodes come, read, sleep and go as they like, while one body makes events.
async fn any_readers(seed: u64) {
    let mut dice = Dice(seed);
    let policy = POLICIES[dice.roll(3) as usize];
    let grace = if dice.roll(2) == 0 { Duration::ZERO } else { SECOND * 4 };
    let limit = if let Disconnect::Detach { at_most } = policy { at_most } else { grace };
    let steps = ticking(2_000, SECOND * 3);
    let route = |hub: &TestHub| hub.sse.layer().id(path()).on_disconnect(policy).grace(grace);
    let (mut hubs, apps, watch) = nodes(route, &steps);
    let mut readers = vec![(reader(&apps[0]).await, 0)];
    let (mut unread, mut elsewhere) = (Duration::ZERO, false);
    for step in 0..60 {
        match dice.roll(6) {
            0 if readers.len() < 6 => {
                let node = dice.roll(2) as usize;
                readers.push((reader(&apps[node]).await, node));
            }
            1 | 2 if !readers.is_empty() => {
                let (left, node) = readers.swap_remove(dice.roll(readers.len() as u64) as usize);
                elsewhere = node == 1;
                drop(left);
            }
            3 => readers.iter_mut().for_each(|(client, _)| client.drain()),
            _ => {}
        }
        let longest = if dice.roll(4) == 0 { 100 } else { 12 };
        let pause = Duration::from_millis(250 * dice.roll(longest));
        advance(&mut hubs, pause).await;
        unread = if readers.is_empty() { unread + pause } else { Duration::ZERO };
        let told = format!("seed {seed}, step {step}: {policy:?}, grace {grace:?}, unread for {unread:?}");
        // Readers of another node are asked for once a second.
        let late = if elsewhere { SECOND * 2 } else { Duration::from_millis(250) };
        if unread < limit || !readers.is_empty() {
            assert_eq!((watch.alive(), watch.made()), (1, 1), "{told}");
        } else if unread > limit + late {
            assert_eq!((watch.alive(), watch.made()), (0, 1), "{told}");
            return;
        }
        if watch.alive() == 0 {
            return;
        }
    }
    for (mut client, _) in readers {
        client.drain();
        assert!(!client.ended && !client.names().contains(&"gap"), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn g8_the_work_lasts_as_long_as_its_readers_whatever_they_do() {
    for seed in 0..60 {
        any_readers(seed).await;
    }
}
