//! Nodes on one store, each with its guardian on a task, and the routes that they all have.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Request;
use resilient_sse::{
    Builder, Disconnect, DrainReport, Durability, MemoryStore, ResilientSse, StreamId, test_util::FaultStore,
};
use tokio::{sync::oneshot, task::JoinHandle};
use tower::{ServiceExt as _, service_fn, util::BoxCloneService};

use crate::support::{
    bodies::{App, Step, Watch, chunk, events, serving},
    random::Shared,
};

/// The routes of all policies; after them comes [`GRACEFUL`].
pub const ROUTES: usize = 6;
/// The route that interrupts a stream when nobody has read it for [`GRACE`].
pub const GRACEFUL: usize = ROUTES;
pub const GRACE: Duration = Duration::from_millis(400);

/// The parts that all nodes share.
#[derive(Clone)]
pub struct World {
    pub store: FaultStore<MemoryStore>,
    pub random: Shared,
    /// The inner bodies.
    pub watch: Watch,
    /// The streams whose `on_end` hook ran.
    pub hooked: Arc<Mutex<BTreeSet<String>>>,
}

pub struct Node {
    pub sse: ResilientSse,
    pub routes: Vec<App>,
    guardian: JoinHandle<DrainReport>,
    go_down: Option<oneshot::Sender<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.guardian.abort();
    }
}

impl World {
    pub fn new(immediate: bool, random: Shared) -> Self {
        let store = FaultStore::new(MemoryStore::new());
        let store = if immediate { store } else { store.batched() };
        Self { store, random, watch: Watch::default(), hooked: Arc::default() }
    }

    pub fn node(&self, setup: impl FnOnce(Builder) -> Builder) -> Node {
        let ms = Duration::from_millis;
        let hooked = Arc::clone(&self.hooked);
        let builder = ResilientSse::builder(self.store.clone())
            .anonymous()
            .heartbeat(ms(50))
            .stall_limit(ms(40))
            .stale_after(ms(10_000))
            .sweep_every(ms(500))
            .recovery_window(ms(60_000))
            .on_end(move |stream| {
                hooked.lock().unwrap().insert(stream.key().id.to_string());
                std::future::ready(())
            });
        let (sse, guardian) = setup(builder).build().unwrap();
        let (go_down, down) = oneshot::channel();
        let guardian = tokio::spawn(guardian.with_graceful_shutdown(async { drop(down.await) }));
        let routes = (0..=GRACEFUL).map(|route| serving_route(&sse, route, self)).collect();
        Node { sse, routes, guardian, go_down: Some(go_down) }
    }

    /// Sends a request to this route of one of these nodes, like a load balancer.
    pub fn balanced(&self, nodes: &[Node], route: usize) -> App {
        let apps: Arc<Mutex<Vec<App>>> =
            Arc::new(Mutex::new(nodes.iter().map(|node| node.routes[route].clone()).collect()));
        let random = self.random.clone();
        BoxCloneService::new(service_fn(move |request: Request<()>| {
            let app = random.pick(&apps.lock().unwrap());
            app.oneshot(request)
        }))
    }
}

impl Node {
    /// Drains the process.
    pub fn goes_down(&mut self) -> &mut JoinHandle<DrainReport> {
        drop(self.go_down.take());
        &mut self.guardian
    }
}

/// The policies, each with both durabilities.
pub fn policy(route: usize) -> (Disconnect, Durability) {
    let at_most = Duration::from_secs(100);
    let disconnect = [Disconnect::Interrupt, Disconnect::Detach { at_most }, Disconnect::Cancel][route % 3];
    (disconnect, [Durability::Buffered, Durability::BeforeSend][route / 3])
}

fn serving_route(sse: &ResilientSse, route: usize, world: &World) -> App {
    let (disconnect, durability) = policy(route % ROUTES);
    let grace = if route == GRACEFUL { GRACE } else { Duration::ZERO };
    let layer = sse.layer().id(StreamId::path("/{id}")).on_disconnect(disconnect).durability(durability).grace(grace);
    let (watch, random) = (world.watch.clone(), world.random.clone());
    serving(layer, move |_| events(watch.body(script(&random))))
}

/// Numbered events, some together, some after a pause, then the end.
fn script(random: &Shared) -> Vec<Step> {
    let count = 20 + random.below(150);
    let (mut steps, mut text) = (Vec::new(), String::new());
    for n in 0..count {
        text.push_str(&format!("data: {n}\n\n"));
        let pause = match random.below(12) {
            0 => Some(Step::Sleep(random.millis(12))),
            1 => Some(Step::Yield),
            _ => None,
        };
        if pause.is_some() || !random.one_in(3) {
            steps.push(chunk(std::mem::take(&mut text)));
        }
        steps.extend(pause);
    }
    steps.push(chunk(text + &format!("event: completed\ndata: last {count}\n\n")));
    steps
}
