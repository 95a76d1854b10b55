//! Nodes on one store, and the verdict at the end of every scenario.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use resilient_sse::{
    Builder, MemoryStore, Owner, ResilientSse, Store as _, StreamKey, StreamState,
    test_util::{FaultStore, TestHub},
};

use crate::{
    client::Client,
    support::{
        checker::{Facts, check_health},
        handlers::App,
    },
};

/// Short enough that a scenario can wait for it.
const LIFETIME: Duration = Duration::from_secs(600);
const RECOVERY: Duration = Duration::from_secs(300);
const SWEEP: Duration = Duration::from_secs(30);

pub type AllFacts = Arc<Mutex<BTreeMap<StreamKey, Facts>>>;

/// Nodes that share a store.
pub struct Stage {
    pub hubs: Vec<TestHub>,
    pub store: FaultStore<MemoryStore>,
    /// Whether the store lost its data.
    forgot: bool,
    facts: AllFacts,
}

impl Stage {
    /// Makes a stage with one node and all defaults.
    pub fn new() -> Self {
        Self::nodes(1, |hub| hub)
    }

    /// Makes a stage with a number of nodes that are set up alike.
    pub fn nodes(nodes: usize, setup: impl Fn(Builder) -> Builder) -> Self {
        Self::on(FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)), nodes, setup)
    }

    pub fn on(store: FaultStore<MemoryStore>, nodes: usize, setup: impl Fn(Builder) -> Builder) -> Self {
        let mut stage = Self { hubs: Vec::new(), store, forgot: false, facts: Arc::default() };
        for _ in 0..nodes {
            stage.add(&setup);
        }
        stage
    }

    /// Adds a node.
    pub fn add(&mut self, setup: impl Fn(Builder) -> Builder) {
        let hub = TestHub::on(self.store.clone(), |hub| setup(hub.owner(user).lifetime(LIFETIME)));
        self.hubs.push(hub.unwrap());
    }

    pub fn sse(&self) -> &ResilientSse {
        &self.hubs[0].sse
    }

    /// Makes a client of the stream that the path's last segment names.
    pub fn client(&self, app: &App, uri: &str) -> Client {
        Client::new(app, uri, &self.facts)
    }

    /// Empties the store, like a restart without persistence.
    pub fn forget(&mut self) {
        self.forgot = true;
        self.store.forget();
    }

    /// Polls every node's guardian until it has nothing to do now.
    pub async fn step(&mut self) {
        for hub in &mut self.hubs {
            hub.step().await;
        }
    }

    /// Lets time pass on every node.
    pub async fn advance(&mut self, time: Duration) {
        let mut left = time;
        self.step().await;
        while !left.is_zero() {
            let step = left.min(Duration::from_millis(250));
            tokio::time::advance(step).await;
            self.step().await;
            left -= step;
        }
    }

    /// Lets time pass; the guardians of all other nodes are not polled.
    pub async fn advance_only(&mut self, nodes: &[usize], time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(Duration::from_millis(250));
            tokio::time::advance(step).await;
            for node in nodes {
                self.hubs[*node].step().await;
            }
            left -= step;
        }
    }

    pub async fn state(&self, client: &Client) -> Option<StreamState> {
        // Read the store directly, without its faults and the breaker.
        self.store.inner().info(client.witness.key.clone()).await.unwrap().map(|info| info.state)
    }

    /// Compares the log in the store with what clients saw.
    pub async fn check_logs(&self) {
        let lost = self.forgot || self.hubs.iter().any(|hub| hub.sse.health().lost > 0);
        let keys: Vec<_> = self.facts.lock().unwrap().keys().cloned().collect();
        for key in keys {
            let page = self.sse().completions().events(&key, None, usize::MAX).await.unwrap();
            let Some(page) = page else { continue };
            self.facts.lock().unwrap().get_mut(&key).unwrap().check_log(&key, &page, lost);
        }
    }

    async fn judge(&mut self) {
        self.store.heal();
        self.step().await;
        self.check_logs().await;
        let told: u64 = self.facts.lock().unwrap().values().map(|facts| facts.gaps).sum();
        let counted: u64 = self.hubs.iter().map(|hub| hub.sse.health().gaps).sum();
        assert!(told <= counted, "{told} gaps were told, {counted} counted");
    }

    /// The same in real time: waits until everything has expired.
    pub async fn real_verdict(mut self) {
        self.judge().await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while !self.store.inner().is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "left in the store: {:?}", self.store.inner());
            self.step().await;
        }
        self.check_nodes();
    }

    /// Judges everything, then lets it expire, and asserts that nothing is left.
    pub async fn verdict(mut self) {
        self.judge().await;
        self.advance(RECOVERY + SWEEP * 2).await;
        if !self.store.inner().is_empty() {
            // An interrupted stream may be run again until its lifetime is over.
            self.advance(LIFETIME).await;
        }
        assert!(self.store.inner().is_empty(), "left in the store: {:?}", self.store.inner());
        self.check_nodes();
    }

    fn check_nodes(&self) {
        for hub in &self.hubs {
            check_health(&hub.sse.health());
        }
    }
}

/// Reads the request's owner from the test's own header.
pub fn user(request: &http::request::Parts) -> Option<Owner> {
    match request.headers.get("x-user") {
        Some(user) => Owner::new(user.to_str().ok()?).ok(),
        None => Some(Owner::ANONYMOUS),
    }
}
