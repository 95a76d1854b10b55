//! At most one stream of a conversation runs under `Replace` and `Refuse`, however many turns race on three nodes. Real
//! threads, real time; what each contender does is seeded.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use resilient_sse::{
    MemoryStore, Overlap, Owner, ResilientSse, ResilientSseBody, Store, StreamContext, StreamId, StreamState,
    test_util::cut_after,
};
use tokio::task::JoinSet;
use tower::{ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneSyncService};

use crate::support::{
    handlers::{Alive, Body, Finish, Script, plain, sse},
    random::Random,
};

const NODES: usize = 3;
const CONTENDERS: u64 = 4;
const AT_A_TIME: u64 = 40;
/// Longer than the time until a sweep finds a registration whose withdrawal was lost with a connection.
const PATIENCE: Duration = Duration::from_secs(150);

/// A handler that follows its query: it yields a number of times, then begins or fails.
async fn handle(request: Request<()>) -> Result<Response<Body>, Infallible> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let wait: u64 = query.split('&').next().and_then(|wait| wait.parse().ok()).unwrap_or(0);
    for _ in 0..wait {
        tokio::task::yield_now().await;
    }
    if query.ends_with("fails") {
        return Ok(plain(500, "text/plain", "no"));
    }
    let id = request.extensions().get::<StreamContext>().map(|context| context.id().to_string());
    let finish = if query.ends_with("ends") { Finish::Event("completed") } else { Finish::Never };
    let script = Script::events(1).every(Duration::ZERO).then(finish);
    Ok(sse(script.body(id.unwrap_or_default(), 1, Alive::new(&Arc::default()))))
}

type App = BoxCloneSyncService<Request<()>, Response<ResilientSseBody<Body>>, Infallible>;

/// Nodes with stores that share their data, and with guardians.
pub struct Race {
    hubs: Vec<ResilientSse>,
    apps: Vec<App>,
}

impl Race {
    pub fn new<S: Store>(stores: Vec<S>, overlap: Overlap) -> Self {
        let (mut hubs, mut apps) = (Vec::new(), Vec::new());
        for store in stores {
            let owner = |request: &http::request::Parts| Owner::new(request.headers.get("x-user")?.to_str().ok()?).ok();
            // A machine that is busy with other tests must not count as an outage.
            let patience = Duration::from_secs(10);
            let builder = ResilientSse::builder(store).owner(owner).recovery_window(Duration::from_secs(5));
            let builder = builder.store_limit(patience).open_limit(patience).background_limit(patience);
            let (sse, guardian) = builder.sweep_every(Duration::from_millis(500)).build().unwrap();
            tokio::spawn(guardian);
            let layer = sse.generation().conversation(StreamId::path("/chat/{id}")).overlap(overlap);
            apps.push(BoxCloneSyncService::new(ServiceBuilder::new().layer(layer).service(service_fn(handle))));
            hubs.push(sse);
        }
        Self { hubs, apps }
    }

    /// Runs these races, a number of them at a time. Returns how many turns began.
    pub async fn run(self, races: std::ops::Range<u64>, overlap: Overlap) -> u64 {
        let race = Arc::new(self);
        let mut began = 0;
        for first in races.clone().step_by(AT_A_TIME as usize) {
            let mut running = JoinSet::new();
            for seed in first..(first + AT_A_TIME).min(races.end) {
                let race = Arc::clone(&race);
                running.spawn(async move { race.one(seed, overlap).await });
            }
            began += running.join_all().await.iter().sum::<u64>();
            if first % 1000 == 0 {
                println!("{overlap:?}: {first} races, {began} turns began");
            }
        }
        began
    }

    async fn one(&self, seed: u64, overlap: Overlap) -> u64 {
        let mut random = Random(seed);
        let user = format!("u{seed}");
        let owner = Owner::new(&user).unwrap();
        let chat = StreamId::new("c").unwrap();
        let mut contenders = JoinSet::new();
        for _ in 0..CONTENDERS {
            let app = self.apps[random.below(NODES as u64) as usize].clone();
            let (wait, late) = (random.below(6), random.below(4));
            let how = ["runs", "runs", "runs", "ends", "fails"][random.below(5) as usize];
            // Some clients leave before the head, or after it; on this route the work goes on.
            let leaves = random.below(8);
            let request = Request::post(format!("/chat/c?{wait}&{how}")).header("x-user", &user).body(()).unwrap();
            contenders.spawn(async move {
                for _ in 0..late {
                    tokio::task::yield_now().await;
                }
                let asking = tokio::spawn(app.oneshot(request));
                if leaves == 0 {
                    tokio::task::yield_now().await;
                    asking.abort();
                }
                let Ok(Ok(response)) = asking.await else { return 0 };
                let began = u64::from(response.status() == 200);
                if leaves > 1 {
                    let _ = tokio::time::timeout(Duration::from_millis(20), cut_after(1, response.into_body())).await;
                }
                began
            });
        }
        let stops = random.below(4) == 0;
        let began = contenders.join_all().await.iter().sum();
        if stops {
            let node = random.below(NODES as u64) as usize;
            let stop = self.hubs[node].stop().conversation(StreamId::path("/chat/{id}/stream"));
            let request = Request::delete("/chat/c/stream").header("x-user", &user).body(()).unwrap();
            stop.oneshot(request).await.unwrap();
        }
        self.judge(seed, overlap, &owner, &chat).await;
        began
    }

    async fn stop_all(&self, owner: &Owner) -> bool {
        let streams = self.hubs[0].streams();
        let Ok(all) = streams.list(owner).await else { return false };
        for info in all {
            if streams.stop(owner, &info.key.id).await.is_err() {
                return false;
            }
        }
        true
    }

    /// In the end at most one stream runs, and the pointer names it.
    async fn judge(&self, seed: u64, overlap: Overlap, owner: &Owner, chat: &StreamId) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let streams = self.hubs[0].streams();
        loop {
            // On a machine that is busy with other tests a request may time out, which says nothing about the race.
            let (Ok(all), Ok(current)) = (streams.list(owner).await, streams.current(owner, chat).await) else {
                assert!(tokio::time::Instant::now() < deadline, "race {seed}, {overlap:?}: the store does not answer");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let running: Vec<_> = all.iter().filter(|info| info.state == StreamState::Active).collect();
            let named = current.as_ref().map(|info| info.key.id.clone());
            let is_settled = match &running[..] {
                [] => true,
                [one] => one.started && named.as_ref() == Some(&one.key.id),
                _ => false,
            };
            if is_settled {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "race {seed}, {overlap:?}: {running:#?}, named {named:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The race is over: end the stream, so that later requests cannot change the result.
        while !self.stop_all(owner).await {
            assert!(tokio::time::Instant::now() < deadline, "race {seed}, {overlap:?}: the store does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn on_memory(overlap: Overlap) {
    const RACES: u64 = 10_000;
    let store = MemoryStore::new();
    let race = Race::new(vec![store.clone(); NODES], overlap);
    let began = race.run(0..RACES, overlap).await;
    // Under `Refuse` about one turn begins in each race.
    assert!(began > RACES / 2, "{began} turns began in {RACES} races");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !store.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "left in the store: {store:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_races_leave_at_most_one_running_under_replace() {
    on_memory(Overlap::Replace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_races_leave_at_most_one_running_under_refuse() {
    on_memory(Overlap::Refuse).await;
}

#[cfg(feature = "redis")]
mod redis {
    use resilient_sse::RedisStore;

    use super::{NODES, Overlap, Race};
    use crate::support::redis::RedisServer;

    /// Returns the number of races on a real server: `CONVERSATION_RACES`, or 300.
    fn races() -> u64 {
        std::env::var("CONVERSATION_RACES").ok().and_then(|races| races.parse().ok()).unwrap_or(300)
    }

    async fn on(url: &str, overlap: Overlap) {
        let mut stores = Vec::new();
        for _ in 0..NODES {
            stores.push(RedisStore::connect(url).await.unwrap());
        }
        let began = Race::new(stores, overlap).run(0..races(), overlap).await;
        assert!(began > races() / 2, "{began} turns began in {} races", races());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn races_on_redis_leave_at_most_one_running() {
        let server = RedisServer::start();
        for overlap in [Overlap::Replace, Overlap::Refuse] {
            on(&server.url(), overlap).await;
        }
        // Each key has a TTL, so nothing is left one recovery window after the last end.
        let deadline = std::time::Instant::now() + super::PATIENCE;
        loop {
            let keys: Vec<String> = server.ask(&["KEYS", "sse:*"]);
            let left: Vec<_> = keys.iter().filter(|key| !key.starts_with("sse:node:")).take(5).collect();
            if left.is_empty() {
                break;
            }
            let ttls: Vec<u64> = left.iter().map(|key| server.ask(&["PTTL", key])).collect();
            assert!(std::time::Instant::now() < deadline, "left: {left:?}, {ttls:?}");
            tokio::time::sleep(super::Duration::from_millis(200)).await;
        }
    }

    #[cfg(feature = "redis-cluster")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn races_in_a_cluster_leave_at_most_one_running() {
        let cluster = crate::support::redis::RedisCluster::start();
        for overlap in [Overlap::Replace, Overlap::Refuse] {
            on(&cluster.url(), overlap).await;
        }
    }
}
