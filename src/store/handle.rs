//! A store of any type, behind one type: each request has a time limit, and a breaker watches.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, Sleep},
};

use super::{
    Append, Appended, Beat, Beaten, Close, Closed, Due, Interrupt, Interrupted, List, Listed, Notices, Open, Opened,
    Page, Point, Pointed, Pointer, Publish, Published, Read, Renew, Renewed, Reopen, Reopened, Store, Tail,
    gate::{Class, Gate, Gates},
};
use crate::{
    model::{
        config::Settings,
        error::StoreError,
        id::{NodeId, StreamId, StreamKey},
        stream::StreamInfo,
    },
    runtime::{
        executor::BoxFuture,
        panics::{Guarded, drop_guarded, guarded},
    },
    telemetry::Telemetry,
};

type Answer<T> = BoxFuture<Result<T, StoreError>>;

/// Makes the object-safe face of [`Store`] and its one implementation. Of each method is said what may be asked of a store
/// that is away, and which stream it is about, where it is about one.
macro_rules! erased {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty, $class:ident, $key:expr;)*) => {
        trait ErasedStore: Send + Sync {
            $(fn $name(self: Arc<Self>, $($arg: $type),*) -> Answer<$out>;)*
            fn append_now(&self, append: &Append) -> Option<Appended>;
            fn part(&self, key: &StreamKey) -> u64;
            fn parts(&self) -> usize;
            fn tail(&self, key: &StreamKey) -> Tail;
            fn is_followed_beside(&self, key: &StreamKey, here: usize) -> bool;
            fn followed(&self) -> Option<Vec<StreamKey>>;
            fn notices(&self, node: &NodeId) -> Notices;
        }

        impl<S: Store> ErasedStore for S {
            $(fn $name(self: Arc<Self>, $($arg: $type),*) -> Answer<$out> {
                Box::pin(async move {
                    Store::$name(&*self, $($arg),*).await.map_err(|source| StoreError::failed(stringify!($name), source))
                })
            })*
            fn append_now(&self, append: &Append) -> Option<Appended> {
                Store::append_now(self, append)
            }
            fn part(&self, key: &StreamKey) -> u64 {
                Store::part(self, key)
            }
            fn parts(&self) -> usize {
                Store::parts(self)
            }
            fn tail(&self, key: &StreamKey) -> Tail {
                Store::tail(self, key)
            }
            fn is_followed_beside(&self, key: &StreamKey, here: usize) -> bool {
                Store::is_followed_beside(self, key, here)
            }
            fn followed(&self) -> Option<Vec<StreamKey>> {
                Store::followed(self)
            }
            fn notices(&self, node: &NodeId) -> Notices {
                Store::notices(self, node)
            }
        }

        impl StoreHandle {
            $(pub(crate) async fn $name(&self, $($arg: $type),*) -> Result<$out, StoreError> {
                let gate = self.gate($key);
                self.ask(stringify!($name), Class::$class, gate, || Arc::clone(&self.store).$name($($arg),*)).await
            })*
        }
    };
}

erased! {
    open(open: Open) -> Opened, Grow, Some(&open.key);
    withdraw(key: StreamKey, token: u128) -> (), Settle, Some(&key);
    append(appends: Vec<Append>) -> Vec<Appended>, Grow, appends.first().map(|append| &append.key);
    close(close: Close) -> Closed, Settle, Some(&close.key);
    interrupt(interrupt: Interrupt) -> Interrupted, Settle, Some(&interrupt.key);
    reopen(reopen: Reopen) -> Reopened, Grow, Some(&reopen.open.key);
    publish(publish: Publish) -> Published, Grow, Some(&publish.key);
    read(read: Read) -> Option<Page>, Look, Some(&read.key);
    info(key: StreamKey) -> Option<StreamInfo>, Look, Some(&key);
    announce(key: StreamKey) -> (), Look, Some(&key);
    delete(key: StreamKey) -> (), Look, Some(&key);
    list(list: List) -> Listed, Look, None;
    active_count() -> u64, Look, None;
    stale(threshold: Duration, limit: usize) -> Vec<StreamInfo>, Look, None;
    beat(beat: Beat) -> Beaten, Background, None;
    due(limit: usize, lease: Duration, claim: Option<u64>) -> Vec<Due>, Background, None;
    close_all(closes: Vec<Close>) -> Vec<Option<Closed>>, Background, None;
    hook_done(key: StreamKey) -> (), Background, Some(&key);
    pointer(conversation: StreamKey) -> Option<Pointer>, Look, Some(&conversation);
    point(point: Point) -> Pointed, Look, Some(&point.conversation);
    unpoint(conversation: StreamKey, stream: StreamId, epoch: Option<u64>) -> Option<Pointer>, Background, Some(&conversation);
    give_way(conversation: StreamKey, streams: Vec<StreamId>) -> (), Background, Some(&conversation);
    renew(renewals: Vec<Renew>) -> Vec<Renewed>, Background, None;
}

/// The store as the rest of the crate sees it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StoreHandle {
    store: Arc<dyn ErasedStore>,
    immediate: bool,
    limits: Limits,
    gates: Arc<Gates>,
    /// Told when the store is back after it was away.
    back: Arc<Notify>,
    /// What is asked has time, and says nothing of whether the store is waited for.
    in_background: bool,
    telemetry: Arc<Telemetry>,
}

/// How long the store is waited for.
#[derive(Clone, Copy)]
struct Limits {
    /// A write of the hot path.
    write: Duration,
    /// What takes several round trips, while somebody waits for it.
    open: Duration,
    /// A beat: other nodes judge this one by it, so it must not take up the time of the next ones.
    beat: Duration,
    background: Duration,
}

impl Limits {
    fn new(settings: &Settings) -> Self {
        let Settings { store_limit: write, open_limit: open, background_limit: background, .. } = *settings;
        Self { write, open, beat: (settings.stale_after / 6).min(open).max(write), background }
    }

    fn of(self, operation: &str, in_background: bool) -> Duration {
        match operation {
            _ if in_background => self.background,
            "open" | "read" | "info" | "pointer" => self.open,
            "beat" => self.beat,
            "list" | "active_count" | "stale" | "delete" | "due" | "hook_done" | "unpoint" | "give_way" | "renew" => {
                self.background
            }
            _ => self.write,
        }
    }
}

impl StoreHandle {
    pub(crate) fn new(store: impl Store, settings: &Settings, telemetry: Arc<Telemetry>) -> Self {
        Self {
            immediate: store.is_immediate(),
            store: Arc::new(store),
            limits: Limits::new(settings),
            gates: Arc::new(Gates::new(Arc::clone(&telemetry))),
            back: Arc::default(),
            in_background: false,
            telemetry,
        }
    }

    /// The same store, for those who have time: sweeps, hooks, ends that are said again. They wait longer, are sent
    /// whatever the breaker says, and never open it.
    pub(crate) fn in_background(&self) -> Self {
        Self { in_background: true, ..self.clone() }
    }

    pub(crate) fn is_immediate(&self) -> bool {
        self.immediate
    }

    /// Appends a batch at once: the outcome, if the store has one at once. A store whose code panics has none.
    pub(crate) fn append_now(&self, append: &Append) -> Option<Appended> {
        if self.is_broken(&append.key) { None } else { guarded(|| self.store.append_now(append)).unwrap_or(None) }
    }

    pub(crate) fn tail(&self, key: &StreamKey) -> Tail {
        self.store.tail(key)
    }

    pub(crate) fn is_followed_beside(&self, key: &StreamKey, here: usize) -> bool {
        self.store.is_followed_beside(key, here)
    }

    pub(crate) fn followed(&self) -> Option<Vec<StreamKey>> {
        self.store.followed()
    }

    pub(crate) fn notices(&self, node: &NodeId) -> Notices {
        self.store.notices(node)
    }

    /// Which part of the store a stream is in.
    pub(crate) fn part(&self, key: &StreamKey) -> u64 {
        self.store.part(key)
    }

    /// Whether the part of the store that a stream is in failed, and is not waited for.
    pub(crate) fn is_broken(&self, key: &StreamKey) -> bool {
        self.gates.any_open() && self.gates.of(self.part(key)).is_open()
    }

    /// Whether nothing can be heard through the part of the store that a stream is in, as far as this node has tried.
    pub(crate) fn is_mute(&self, key: &StreamKey) -> bool {
        self.is_broken(key) || self.gates.has_refused(self.part(key))
    }

    /// Whether no part of the store is waited for.
    pub(crate) fn is_away(&self) -> bool {
        self.gates.any_open() && self.gates.count_open() >= self.store.parts().max(1)
    }

    /// Whether any part of the store is not waited for.
    pub(crate) fn is_ailing(&self) -> bool {
        self.gates.any_open()
    }

    /// Whether a part of the store is not waited for, and until when it is not asked; `None` means that it may be asked now.
    pub(crate) fn part_closed_until(&self, part: u64) -> (bool, Option<Instant>) {
        if !self.gates.any_open() {
            return (false, None);
        }
        let gate = self.gates.of(part);
        (gate.is_open(), gate.closed_until())
    }

    /// How often a part of the store answered again after it had failed; the waker is woken when it does the next time. One
    /// at a time: the flusher's.
    pub(crate) fn healed(&self, part: u64, waker: &Waker) -> u64 {
        self.gates.of(part).healed(waker)
    }

    /// The store was away, and is back: whoever waits for that hears of it once.
    pub(crate) fn came_back(&self) {
        self.back.notify_one();
    }

    /// Ready once the store is back. One waits for that, the guardian.
    pub(crate) async fn back(&self) {
        self.back.notified().await;
    }

    /// A sign of life. It is always sent, since other nodes judge this one by it, and neither takes a probe nor puts one
    /// off; but a store that takes it in good time answers again.
    pub(crate) async fn sign_of_life(&self, beat: Beat) -> Result<Beaten, StoreError> {
        let asked = Instant::now();
        let beaten = self.beat(beat).await;
        self.gates.note_refused(beaten.as_ref().ok().map(|beaten| beaten.refused_by.clone()));
        let beaten = beaten?;
        if asked.elapsed() <= self.limits.write && self.gates.beaten(&beaten.taken_by) {
            self.came_back();
        }
        Ok(beaten)
    }

    /// The breaker that a request is subject to. One that is about no single stream is subject to none, unless the store is
    /// all of one part.
    fn gate(&self, key: Option<&StreamKey>) -> Option<Arc<Gate>> {
        match key {
            Some(key) => Some(self.gates.of(self.part(key))),
            None => (self.store.parts() <= 1).then(|| self.gates.of(0)),
        }
    }

    async fn ask<T>(
        &self,
        operation: &'static str,
        class: Class,
        gate: Option<Arc<Gate>>,
        request: impl FnOnce() -> Answer<T>,
    ) -> Result<T, StoreError> {
        let gate = gate.filter(|_| !self.in_background && class != Class::Background);
        if gate.as_ref().is_some_and(|gate| !self.gates.admits(gate, class)) {
            return Err(StoreError::breaker_open(operation));
        }
        let asked = Instant::now();
        let answer = self.answer(operation, self.limits.of(operation, self.in_background), request()).await;
        match (&answer, gate) {
            (Ok(_), Some(gate)) => {
                // What somebody reads may take its time, and says then nothing of how soon a write is answered.
                let in_time = class.is_hot() || asked.elapsed() <= self.limits.write;
                if in_time && self.gates.succeeded(&gate, class) {
                    self.came_back();
                }
            }
            (Ok(_), None) => {}
            (Err(error), gate) => {
                self.telemetry.store_failed(error);
                if let Some(gate) = gate.filter(|_| class.is_hot()) {
                    self.gates.failed(&gate, class, error);
                }
            }
        }
        answer
    }

    /// Waits for an answer for as long as the limit says. A store of the host's own that panics has failed.
    async fn answer<T>(&self, operation: &'static str, limit: Duration, request: Answer<T>) -> Result<T, StoreError> {
        let mut request = Guarded::new(request);
        // One that is answered at once needs no timer, nor a runtime that has one. What is begun where there is none, by
        // the drop of a request's future, gets its timer once it is polled where there is.
        let mut late: Option<Pin<Box<Sleep>>> = None;
        let answer = poll_fn(|cx| {
            match Pin::new(&mut request).poll(cx) {
                Poll::Ready(Ok(answer)) => return Poll::Ready(answer),
                Poll::Ready(Err(panicked)) => {
                    self.telemetry.panicked("store");
                    return Poll::Ready(Err(StoreError::failed(operation, panicked)));
                }
                Poll::Pending => {}
            }
            if late.is_none() && Handle::try_current().is_ok() {
                // Boxed, so that the future of a request that is answered at once is small.
                late = Some(Box::pin(tokio::time::sleep(limit)));
            }
            let Some(late) = &mut late else { return Poll::Pending };
            late.as_mut().poll(cx).map(|()| Err(StoreError::timed_out(operation)))
        })
        .await;
        drop_guarded(request);
        answer
    }
}
