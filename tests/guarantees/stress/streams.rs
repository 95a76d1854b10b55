//! Rounds of sixteen streams on two nodes: crowds of readers, some that stay, stops, faults.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    stress::{
        judge, judged,
        node::{GRACEFUL, Node, ROUTES, World},
        reader::{Manner, Reader, Rules},
        share_of_time,
        transcript::Transcript,
        trouble,
    },
    support::random::{Shared, seed},
};

const STREAMS: u64 = 16;
/// How many streams are not stopped. Each has a reader that stays.
const STEADY: u64 = 4;
/// How many streams have one reader, which leaves and is back at once.
const BRISK: u64 = 2;

/// The behaviour of a store for a few rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Well,
    Fails,
    Forgets,
}

/// The longest time for a configuration, before the next one of twelve has its turn.
const TURN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn g1_streams_keep_their_order_whoever_comes_goes_and_fails() {
    let seed = seed();
    eprintln!("STRESS_SEED={seed}");
    let random = Shared::new(seed);
    let turn_time = TURN.min(share_of_time(2) / 12);
    let until = Instant::now() + share_of_time(2);
    let (mut rounds, mut events) = (0, 0);
    while Instant::now() < until {
        for store in [Store::Well, Store::Fails, Store::Forgets] {
            for immediate in [true, false] {
                for ample in [true, false] {
                    let turn = Turn::new(store, immediate, ample, random.clone());
                    let (more, read) = turn.play(rounds, Instant::now() + turn_time, seed).await;
                    rounds += more;
                    events += read;
                }
            }
        }
    }
    eprintln!("{rounds} rounds, {events} events read");
}

/// One configuration, and its two nodes.
struct Turn {
    store: Store,
    rules: Rules,
    world: World,
    nodes: [Node; 2],
    what: String,
}

impl Turn {
    fn new(store: Store, immediate: bool, ample: bool, random: Shared) -> Self {
        let world = World::new(immediate, random);
        let ms = Duration::from_millis;
        let max_events = if ample { 10_000 } else { 30 };
        // A busy machine must not count as a failing store.
        let limit = if store == Store::Well { ms(5000) } else { ms(60) };
        // For this time no client is told that a stream is gone.
        let stale = if store == Store::Forgets { ms(1000) } else { ms(10_000) };
        let node = || {
            world.node(|hub| {
                hub.store_limit(limit).open_limit(limit.max(ms(200))).stale_after(stale).max_log_events(max_events)
            })
        };
        let nodes = [node(), node()];
        let quiet = store == Store::Well;
        let rules = Rules { forgets: store == Store::Forgets, quiet, ample };
        let what = format!("a store that is {store:?}, immediate: {immediate}, with all of the log: {ample}");
        Self { store, rules, world, nodes, what }
    }

    /// Returns the number of rounds and the number of events that were read.
    async fn play(self, first: u64, until: Instant, seed: u64) -> (u64, u64) {
        let (mut round, mut events) = (first, 0);
        while round == first || Instant::now() < until {
            let seen = judged(&self.what, seed, self.round(round).await);
            events += seen.iter().map(|seen| seen.events).sum::<u64>();
            judge(&self.what, seed, &self.comes_to_rest(round).await);
            round += 1;
        }
        (round - first, events)
    }

    async fn round(&self, round: u64) -> Vec<Result<Transcript, String>> {
        let random = &self.world.random;
        let name = |stream: u64| format!("r{round}-{stream}");
        let stoppable = (STEADY + BRISK..STREAMS).map(name).collect();
        let _stops = trouble::stops(&self.world, &random.pick(&self.nodes.each_ref()).sse, stoppable);
        let _trouble = match self.store {
            Store::Well => None,
            Store::Fails => Some(trouble::faults(&self.world)),
            Store::Forgets => Some(trouble::forgets(&self.world)),
        };
        let mut readers = JoinSet::new();
        for stream in 0..STREAMS {
            let brisk = (STEADY..STEADY + BRISK).contains(&stream);
            let route = if brisk { GRACEFUL } else { stream as usize % ROUTES };
            let reader = |manner| Reader {
                // Both nodes serve a stream by the same policy.
                app: random.pick(&self.nodes.each_ref()).routes[route].clone(),
                id: name(stream),
                manner,
                event_source: random.one_in(2),
                rules: self.rules,
                random: random.clone(),
                left: None,
            };
            if brisk {
                readers.spawn(reader(Manner::Brisk).read());
                continue;
            }
            let erratic: Vec<_> = (0..=random.below(3)).map(|_| reader(Manner::Erratic)).collect();
            if stream < STEADY {
                readers.spawn(stays(reader(Manner::Steady), erratic));
            } else {
                for reader in erratic {
                    readers.spawn(reader.read());
                }
            }
        }
        let seen = readers.join_all().await;
        self.world.store.heal();
        seen
    }

    /// Waits until a round has left nothing except the data that the store keeps. Returns the problems.
    async fn comes_to_rest(&self, round: u64) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let active: u64 = self.nodes.iter().map(|node| node.sse.health().active).sum();
            let alive = self.world.watch.alive();
            if (active, alive) == (0, 0) {
                return Vec::new();
            }
            if Instant::now() > deadline {
                return vec![format!("round {round} is over: {active} streams run, {alive} inner bodies are left")];
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A reader that begins the stream and stays, and others that come and go meanwhile.
async fn stays(mut steady: Reader, others: Vec<Reader>) -> Result<Transcript, String> {
    let mut seen = Transcript::default();
    let mut coming = JoinSet::new();
    for reader in others {
        coming.spawn(async move {
            sleep(reader.random.millis(20)).await;
            reader.read().await
        });
    }
    steady.go_on(&mut seen).await?;
    for other in coming.join_all().await {
        seen.events += other?.events;
    }
    Ok(seen)
}
