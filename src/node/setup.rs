//! The settings and hooks that a hub's builder collects, and the node that is made of them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU64},
};

use http::HeaderValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Node,
    owner::{Authorize, OwnerRule, from_extension},
    reject::{OnReject, Rejecter},
};
use crate::{
    hooks::{Hooks, OnEnd, Probe},
    model::{config::Settings, id::NodeId},
    recorder::{Recorder, unattended::Unattended},
    runtime::{executor::Executor, pulse::Pulses, random::Seeded},
    store::{Store, StoreHandle},
    telemetry::{Seldom, Telemetry},
    wire::{Framing, Sse},
};

/// Wraps a store of any type in its handle, once the settings are known.
type MakeHandle = dyn FnOnce(&Settings, Arc<Telemetry>) -> StoreHandle + Send;

/// The parts of a node that the application chooses.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) store: Box<MakeHandle>,
    pub(crate) name: NodeId,
    pub(crate) owner: Arc<OwnerRule>,
    pub(crate) authorize: Option<Arc<Authorize>>,
    pub(crate) on_reject: Option<Arc<OnReject>>,
    pub(crate) challenge: Option<String>,
    pub(crate) probe: Option<Arc<Probe>>,
    pub(crate) on_end: Option<Box<OnEnd>>,
    pub(crate) executor: Executor,
    pub(crate) framing: Arc<dyn Framing>,
    pub(crate) seed: Option<u64>,
}

impl Setup {
    pub(crate) fn new(store: impl Store) -> Self {
        Self {
            settings: Settings::default(),
            store: Box::new(|settings, telemetry| StoreHandle::new(store, settings, telemetry)),
            name: NodeId::random(),
            owner: Arc::new(from_extension),
            authorize: None,
            on_reject: None,
            challenge: None,
            probe: None,
            on_end: None,
            executor: Executor::default(),
            framing: Arc::new(Sse),
            seed: None,
        }
    }

    /// Makes the node. `challenge` is the checked form of the builder's `challenge`.
    pub(crate) fn into_node(self, challenge: Option<HeaderValue>) -> Node {
        let settings = self.settings;
        let telemetry = Arc::new(Telemetry::default());
        let store = (self.store)(&settings, Arc::clone(&telemetry));
        let hooks = Arc::new(Hooks::new(
            self.on_end,
            self.executor.clone(),
            &store,
            Arc::clone(&telemetry),
            Arc::clone(&self.framing),
            &settings,
        ));
        let recorder =
            Recorder::new(store.clone(), Arc::clone(&telemetry), self.executor.clone(), Arc::clone(&hooks), &settings);
        Node {
            unattended: Arc::new(Unattended::new(settings.max_detached)),
            after_last: CancellationToken::new(),
            after_last_bodies: Arc::default(),
            pulses: Arc::new(Pulses::new(settings.heartbeat, settings.stall_limit)),
            settings,
            name: self.name,
            store,
            recorder: Arc::new(recorder),
            telemetry,
            executor: self.executor,
            hooks,
            probe: self.probe,
            framing: self.framing,
            random: Seeded::new(self.seed),
            owner: self.owner,
            authorize: self.authorize,
            rejecter: Rejecter { on_reject: self.on_reject, challenge },
            guarded_at: AtomicU64::new(0),
            drain: AtomicU8::new(0),
            drain_began: CancellationToken::new(),
            let_go: CancellationToken::new(),
            read_elsewhere: Mutex::default(),
            beyond_record: Arc::default(),
            handlers: Arc::default(),
            bystanders: Arc::default(),
            start: Instant::now(),
            forgotten_until: AtomicU64::new(0),
            asked_store: tokio::sync::Mutex::default(),
            times_asked: AtomicU64::new(0),
            run: Mutex::new(None),
            unguarded: Seldom::default(),
            unowned: Seldom::default(),
            owned: AtomicBool::new(false),
            no_stream_name: Seldom::default(),
            no_conversation: Seldom::default(),
            unmatched: Seldom::default(),
            shared_ids: Seldom::default(),
            late_events: Seldom::default(),
            unkept: Seldom::default(),
            old_http: Seldom::default(),
        }
    }
}
