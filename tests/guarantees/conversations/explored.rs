//! Clients leave between any two steps of their turns, over a network that delays, loses and reorders requests. Seeded,
//! in virtual time. Everything that they leave behind is removed long before a sweep could find it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use resilient_sse::{
    Disconnect, MemoryStore, Overlap, ResilientSse, Store as _, StreamContext, StreamId, StreamInfo, StreamState,
};
use tower::{ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneSyncService};

use crate::{
    conversations::{
        stage::{SECOND, ada, key},
        wire::Wire,
    },
    support::{
        handlers::{Alive, Body, Finish, Script, plain, sse},
        random::Random,
    },
};

type App = BoxCloneSyncService<Request<()>, Response<resilient_sse::ResilientSseBody<Body>>, Infallible>;

/// A handler that follows its query: it waits for some milliseconds, then begins or fails.
async fn handle(request: Request<()>) -> Result<Response<Body>, Infallible> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (wait, how) = query.split_once('&').unwrap();
    tokio::time::sleep(Duration::from_millis(wait.parse().unwrap())).await;
    let context = request.extensions().get::<StreamContext>().cloned();
    if let (Some(context), true) = (&context, request.uri().path() == "/named") {
        if let Err(refused) = context.conversation("c").await {
            return Ok(plain(refused.status().as_u16(), "text/plain", "refused"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if how == "fails" {
        return Ok(plain(500, "text/plain", "no"));
    }
    let id = context.map(|context| context.id().to_string());
    let finish = if how == "ends" { Finish::Event("completed") } else { Finish::Never };
    Ok(sse(Script::events(3).then(finish).body(id.unwrap_or_default(), 1, Alive::new(&Arc::default()))))
}

struct World {
    store: MemoryStore,
    wires: Vec<Wire>,
    apps: Vec<App>,
    random: Random,
    guardians: tokio::task::JoinSet<resilient_sse::DrainReport>,
}

impl World {
    fn new(seed: u64, overlap: Overlap, lost: u64, overtakes: bool) -> Self {
        let mut random = Random(seed);
        let store = MemoryStore::starting_at(1_700_000_000_000);
        let (mut wires, mut apps, mut guardians) = (Vec::new(), Vec::new(), tokio::task::JoinSet::new());
        for node in 0..2 {
            let wire = Wire::new(&store, seed * 2 + node, lost, overtakes);
            wires.push(wire.clone());
            let builder =
                ResilientSse::builder(wire).owner(|_: &http::request::Parts| Some(ada())).seed(seed * 2 + node);
            let (sse, guardian) = builder.build().unwrap();
            guardians.spawn(guardian);
            let ways = [Disconnect::DETACH, Disconnect::Interrupt, Disconnect::Cancel];
            let disconnect = ways[random.below(3) as usize];
            let layer = || sse.generation().on_disconnect(disconnect).grace(Duration::ZERO).overlap(overlap);
            let keyed = StreamId::header(http::HeaderName::from_static("idempotency-key")).or_generate();
            let chat = layer().id(keyed).conversation(StreamId::path("/chat/{id}"));
            let app = |layer| BoxCloneSyncService::new(ServiceBuilder::new().layer(layer).service(service_fn(handle)));
            apps.extend([app(chat), app(layer())]);
        }
        Self { store, wires, apps, random, guardians }
    }

    /// A client that asks for a turn and leaves at some moment, mostly before the response. Returns a problem, if there
    /// is one.
    fn client(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let app = self.random.below(4) as usize;
        let how = ["runs", "ends", "fails"][self.random.below(3) as usize];
        let path = ["/chat/c", "/named"][app % 2];
        let mut request = Request::post(format!("{path}?{}&{how}", self.random.below(12))).body(()).unwrap();
        if self.random.below(3) == 0 {
            request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
        }
        let (app, begins) = (self.apps[app].clone(), Duration::from_millis(self.random.below(40)));
        let stays = Duration::from_millis(if self.random.below(3) == 0 { 5_000 } else { self.random.below(50) });
        async move {
            tokio::time::sleep(begins).await;
            let answer =
                async { Some(resilient_sse::test_util::collect(app.oneshot(request).await.ok()?.into_body()).await) };
            let _ = tokio::time::timeout(stays, answer).await;
        }
    }

    async fn infos(&self) -> Vec<StreamInfo> {
        let list = resilient_sse::store::List { owner: ada(), after: None, limit: 1000 };
        self.store.list(list).await.unwrap().streams
    }

    async fn judge(&self) -> Option<String> {
        let infos = self.infos().await;
        let running: Vec<_> = infos.iter().filter(|info| info.state == StreamState::Active).collect();
        let pointer = self.store.pointer(key("c")).await.unwrap();
        if let Some(left) = running.iter().find(|info| !info.started) {
            return Some(format!("{} has a registration that nobody uses; the pointer is {pointer:?}", left.key.id));
        }
        if running.len() > 1 {
            return Some(format!("{:?} run", running.iter().map(|info| &info.key.id).collect::<Vec<_>>()));
        }
        let named = pointer.as_ref().map(|pointer| &pointer.stream);
        if running.iter().any(|info| Some(&info.key.id) != named) {
            let stands = infos
                .iter()
                .map(|info| (&info.key.id, info.state, info.started, info.ended.as_ref().map(|e| &e.ending.reason)));
            let stands: Vec<_> = stands.collect();
            return Some(format!("{} runs, the pointer is {pointer:?}, {stands:?}", running[0].key.id));
        }
        let is_held = named.is_none_or(|named| infos.iter().any(|info| info.key.id == *named));
        (!is_held).then(|| format!("the pointer names a stream that is gone: {pointer:?}"))
    }
}

async fn explore(seed: u64, overlap: Overlap, lost: u64, overtakes: bool) -> Option<String> {
    let mut world = World::new(seed, overlap, lost, overtakes);
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(world.client())).collect();
    tokio::time::sleep(SECOND).await;
    world.wires.iter().for_each(Wire::calms);
    for client in clients {
        client.await.unwrap();
    }
    // A sweep finds a left-over registration only after half a minute.
    tokio::time::sleep(15 * SECOND).await;
    let wrong = world.judge().await;
    world.guardians.abort_all();
    wrong
}

/// Returns the number of seeds: `CONVERSATION_SEEDS`, or 200.
fn seeds() -> u64 {
    std::env::var("CONVERSATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200)
}

async fn explore_all(lost: u64, overtakes: bool) {
    for overlap in [Overlap::Replace, Overlap::Refuse] {
        let mut wrong = Vec::new();
        for seed in 0..seeds() {
            wrong.extend(explore(seed, overlap, lost, overtakes).await.map(|wrong| format!("{seed}: {wrong}")));
        }
        assert!(wrong.is_empty(), "{overlap:?}, {} of {}: {wrong:#?}", wrong.len(), seeds());
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_between_two_steps_leaves_nothing() {
    explore_all(0, false).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_between_two_steps_leaves_nothing_where_requests_overtake_each_other() {
    explore_all(0, true).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_between_two_steps_leaves_nothing_where_requests_and_answers_are_lost() {
    explore_all(4, false).await;
}
