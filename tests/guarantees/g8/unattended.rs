//! G8: a process keeps a limited number of streams that nobody reads, and no owner uses up the places.

use std::time::Duration;

use http::Request;
use resilient_sse::{
    Builder, Owner, ResilientSseBody, StreamId, StreamKey, StreamState,
    test_util::{FaultStore, TestHub},
};

use crate::support::bodies::{App, Client, Script, Step, Watch, app, chunk, numbers, request, send, then};

const SECOND: Duration = Duration::from_secs(1);

type Reader = Client<ResilientSseBody<Script>>;

fn by_header(builder: Builder) -> Builder {
    builder.owner(|request| Owner::new(request.headers.get("x-user")?.to_str().ok()?).ok())
}

fn route(hub: &TestHub, watch: &Watch) -> App {
    let steps = vec![chunk("data: 0\n\n"), Step::Sleep(SECOND * 120), chunk("event: completed\ndata: done\n\n")];
    app(hub.sse.generation().id(StreamId::path("/s/{id}")), watch, steps)
}

async fn open(app: &App, user: &str, id: &str) -> Reader {
    let request = Request::get(format!("/s/{id}")).header("x-user", user).body(()).unwrap();
    let mut client = Client::new(send(app, request).await.into_body());
    client.drain();
    client
}

async fn state(hub: &TestHub, user: &str, id: &str) -> (StreamState, Option<String>) {
    let key = StreamKey::new(Owner::new(user).unwrap(), StreamId::new(id).unwrap());
    let info = hub.sse.registry().stream(&key).await.unwrap().unwrap();
    (info.state, info.ended.and_then(|ended| ended.ending.reason).map(Into::into))
}

/// A proxy with 1,100 clients restarts, and the clients are back within three seconds.
#[tokio::test(start_paused = true)]
async fn g8_clients_that_leave_together_and_are_soon_back_lose_nothing() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, then(numbers(1), Step::Hang));
    let mut clients = Vec::new();
    for n in 0..1_100 {
        let mut client = Client::new(send(&app, request(&format!("/s/{n}"))).await.into_body());
        client.drain();
        clients.push(client);
    }
    clients.clear();
    hub.step().await;
    assert_eq!((hub.sse.health().detached, watch.alive()), (1_100, 1_100));
    hub.advance(SECOND * 3).await;
    for n in 0..1_100 {
        let mut client = Client::new(send(&app, request(&format!("/s/{n}"))).await.into_body());
        client.drain();
        clients.push(client);
    }
    hub.advance(SECOND * 60).await;
    assert_eq!((hub.sse.health().detached, watch.alive(), watch.made()), (0, 1_100, 1_100));
    assert_eq!(hub.sse.health().ended["failed"], 0);
}

#[tokio::test(start_paused = true)]
async fn g8_beyond_the_limit_the_stream_that_was_left_longest_is_given_up() {
    let mut hub = TestHub::with(|builder| by_header(builder).max_detached(3)).unwrap();
    let watch = Watch::default();
    let app = route(&hub, &watch);
    for n in 0..5 {
        drop(open(&app, "a", &format!("a{n}")).await);
        hub.advance(SECOND).await;
    }
    hub.advance(SECOND * 24).await;
    assert_eq!((watch.alive(), hub.sse.health().detached), (5, 5), "not before half a minute");
    hub.advance(SECOND * 10).await;
    assert_eq!((watch.alive(), hub.sse.health().detached), (3, 3));
    for (n, given_up) in [true, true, false, false, false].into_iter().enumerate() {
        let expected = match given_up {
            true => (StreamState::Failed, Some("detach_limit".to_owned())),
            false => (StreamState::Active, None),
        };
        assert_eq!(state(&hub, "a", &format!("a{n}")).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn g8_the_owner_with_the_most_unread_streams_loses_one_of_them() {
    let mut hub = TestHub::with(|builder| by_header(builder).max_detached(10)).unwrap();
    let watch = Watch::default();
    let app = route(&hub, &watch);
    drop(open(&app, "b", "b0").await);
    for n in 0..20 {
        drop(open(&app, "a", &format!("a{n}")).await);
    }
    drop(open(&app, "c", "c0").await);
    hub.advance(SECOND * 40).await;
    assert_eq!(hub.sse.health().detached, 10);
    for (user, id) in [("b", "b0"), ("c", "c0")] {
        assert_eq!(state(&hub, user, id).await, (StreamState::Active, None), "{user}");
    }
    let mut again = open(&app, "b", "b0").await;
    again.finish(&mut hub).await;
    assert_eq!(again.data(), ["0", "done"]);
}

#[tokio::test(start_paused = true)]
async fn g8_streams_that_are_read_are_never_given_up() {
    let store = FaultStore::new(resilient_sse::MemoryStore::starting_at(1_700_000_000_000));
    let mut hub = TestHub::on(store.clone(), |builder| by_header(builder).max_detached(0)).unwrap();
    let there = TestHub::on(store, by_header).unwrap();
    let watch = Watch::default();
    let (here, elsewhere) = (route(&hub, &watch), route(&there, &watch));
    let mut readers = Vec::new();
    for n in 0..4 {
        let client = open(&here, "a", &format!("a{n}")).await;
        if n < 2 {
            readers.push(open(if n == 0 { &here } else { &elsewhere }, "a", &format!("a{n}")).await);
        }
        drop(client);
    }
    hub.advance(SECOND * 20).await;
    // Back in time.
    readers.push(open(&here, "a", "a2").await);
    hub.advance(SECOND * 60).await;
    let mut active = Vec::new();
    for n in 0..4 {
        active.push(state(&hub, "a", &format!("a{n}")).await.0 == StreamState::Active);
    }
    assert_eq!(active, [true, true, true, false]);
    assert_eq!((watch.alive(), hub.sse.health().detached), (3, 0));
    // Once nobody has read them for that long, they are given up too.
    drop(readers);
    hub.advance(SECOND * 29).await;
    assert_eq!(watch.alive(), 3);
    hub.advance(SECOND * 4).await;
    assert_eq!((watch.alive(), hub.sse.health().detached), (0, 0));
}

/// Clients that are connected and do not read count as readers.
#[tokio::test(start_paused = true)]
async fn g8_stalled_clients_are_not_given_up() {
    let mut hub = TestHub::with(|builder| builder.anonymous().max_detached(2)).unwrap();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, then(numbers(10), Step::Hang));
    let mut clients = Vec::new();
    for id in 0..5 {
        let mut client = Client::new(send(&app, request(&format!("/s/{id}"))).await.into_body());
        assert!(client.poll());
        clients.push(client);
    }
    hub.advance(SECOND * 120).await;
    assert_eq!((hub.sse.health().detached, watch.alive()), (0, 5));
    for client in &mut clients {
        for _ in 0..20 {
            client.drain();
            hub.step().await;
        }
        assert_eq!(client.data(), crate::support::bodies::numbered(10));
    }
}
