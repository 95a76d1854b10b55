//! Seeded storms on three nodes: turns that begin, wait, fail and end, clients that leave, stops, and nodes that die
//! between any two steps and come again. Once it is over, at most one stream runs, and the pointer names it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use resilient_sse::{Overlap, StreamContext, StreamId, test_util::Fault};
use tower::{ServiceBuilder, service_fn, util::BoxCloneService};

use crate::{
    conversations::stage::{SECOND, Stage, post, send},
    support::{
        handlers::{Alive, App, Body, Finish, Script, plain, sse},
        random::Random,
    },
};

const SEEDS: u64 = 60;
const STEPS: usize = 40;

/// A handler that follows its query: it waits for some milliseconds, then begins or fails.
async fn handle(request: Request<()>) -> Result<Response<Body>, Infallible> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (wait, how) = query.split_once('&').unwrap();
    tokio::time::sleep(Duration::from_millis(wait.parse().unwrap())).await;
    if how == "fails" {
        return Ok(plain(500, "text/plain", "no"));
    }
    let id = request.extensions().get::<StreamContext>().map(|context| context.id().to_string());
    let (events, finish) = if how == "ends" { (3, Finish::Event("completed")) } else { (u64::MAX, Finish::Never) };
    let script = Script::events(events).every(SECOND).then(finish);
    Ok(sse(script.body(id.unwrap_or_default(), 1, Alive::new(&Arc::default()))))
}

struct Storm {
    stage: Stage,
    random: Random,
    overlap: Overlap,
    clients: Vec<(usize, tokio::task::JoinHandle<()>)>,
    began: u64,
}

impl Storm {
    fn chat(&self, node: usize) -> App {
        let layer = self.stage.sse(node).generation().conversation(StreamId::path("/chat/{id}")).overlap(self.overlap);
        BoxCloneService::new(ServiceBuilder::new().layer(layer).service(service_fn(handle)))
    }

    fn node(&mut self) -> usize {
        let alive: Vec<_> = (0..self.stage.hubs.len()).filter(|node| self.stage.alive[*node]).collect();
        alive[self.random.below(alive.len() as u64) as usize]
    }

    async fn step(&mut self) {
        match self.random.below(10) {
            0..=3 => self.begin(),
            4 => {
                let node = self.node();
                let _ = self.stage.stop(node, "").await;
            }
            5 => {
                let node = self.node();
                drop(self.stage.resume(node, None).await);
            }
            6 if !self.clients.is_empty() => {
                let at = self.random.below(self.clients.len() as u64) as usize;
                self.clients.swap_remove(at).1.abort();
            }
            7 => self.kill().await,
            _ => {}
        }
        let pause = [0, 50, 500, 3000][self.random.below(4) as usize];
        self.stage.advance(Duration::from_millis(pause)).await;
    }

    fn begin(&mut self) {
        let node = self.node();
        let how = ["runs", "runs", "ends", "fails"][self.random.below(4) as usize];
        let wait = [0, 0, 100, 2000][self.random.below(4) as usize];
        let asked = send(&self.chat(node), post(&format!("/chat/c?{wait}&{how}")));
        self.began += 1;
        self.clients.push((node, tokio::spawn(async move { drop(asked.await.whole().await) })));
    }

    /// A node perhaps begins a turn, and dies after a number of its steps. Another node takes its place.
    async fn kill(&mut self) {
        if self.stage.hubs.len() >= 8 {
            return;
        }
        let node = self.node();
        self.stage.hubs[node].store.die_after(self.random.below(12));
        self.begin();
        self.stage.advance(Duration::from_millis(100)).await;
        self.stage.hubs[node].store.fail(Fault::Hang);
        self.stage.alive[node] = false;
        for (_, client) in self.clients.extract_if(.., |(at, _)| *at == node) {
            client.abort();
        }
        self.stage.add();
    }
}

async fn storm(seed: u64, overlap: Overlap) -> (u64, usize) {
    let mut storm = Storm { stage: Stage::nodes(3), random: Random(seed), overlap, clients: Vec::new(), began: 0 };
    for _ in 0..STEPS {
        storm.step().await;
    }
    // No turn begins any more, and the streams that dead nodes left are found.
    storm.stage.advance(180 * SECOND).await;
    let (running, pointer) = (storm.stage.running().await, storm.stage.pointer().await);
    assert!(running.len() <= 1, "seed {seed}, {overlap:?}: {running:?} run, the pointer is {pointer:?}");
    if let Some(one) = running.first() {
        assert_eq!(pointer, running, "seed {seed}, {overlap:?}: it is not found");
        let node = storm.node();
        assert_eq!(storm.stage.resume(node, None).await.headers()["x-stream-id"], **one, "seed {seed}, {overlap:?}");
    }
    for (_, client) in &storm.clients {
        client.abort();
    }
    let (began, left) = (storm.began, running.len());
    storm.stage.verdict().await;
    (began, left)
}

async fn storms(overlap: Overlap) {
    let (mut began, mut left) = (0, 0);
    for seed in 0..SEEDS {
        let (turns, running) = storm(seed, overlap).await;
        began += turns;
        left += running;
    }
    assert!(
        began > 10 * SEEDS && left > SEEDS as usize / 4,
        "{began} turns were asked for, {left} storms left one running"
    );
}

#[tokio::test(start_paused = true)]
async fn a_storm_leaves_at_most_one_running_under_replace() {
    storms(Overlap::Replace).await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_leaves_at_most_one_running_under_refuse() {
    storms(Overlap::Refuse).await;
}
