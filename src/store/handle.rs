//! A store of any type behind one type, with time limits and circuit breakers.

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
    limits::Limits,
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

/// Defines an object-safe version of [`Store`], its implementation for every store, and the methods of [`StoreHandle`].
///
/// For each method it is given the class of the request, and the key of its stream if it has one.
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
    read(read: Read) -> Option<Page>, Read, Some(&read.key);
    info(key: StreamKey) -> Option<StreamInfo>, Read, Some(&key);
    announce(key: StreamKey) -> (), Read, Some(&key);
    delete(key: StreamKey) -> (), Read, Some(&key);
    list(list: List) -> Listed, Read, None;
    active_count() -> u64, Read, None;
    stale(threshold: Duration, limit: usize) -> Vec<StreamInfo>, Read, None;
    beat(beat: Beat) -> Beaten, Background, None;
    due(limit: usize, lease: Duration, claim: Option<u64>) -> Vec<Due>, Background, None;
    close_all(closes: Vec<Close>) -> Vec<Option<Closed>>, Background, None;
    hook_done(key: StreamKey) -> (), Background, Some(&key);
    pointer(conversation: StreamKey) -> Option<Pointer>, Read, Some(&conversation);
    point(point: Point) -> Pointed, Read, Some(&point.conversation);
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
    /// Notified when the store answers again after an outage.
    back: Arc<Notify>,
    /// Whether requests of this handle may take their time: they have a longer limit and do not move the breakers.
    in_background: bool,
    telemetry: Arc<Telemetry>,
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

    /// A handle for requests that may take their time, such as those of sweeps and hooks and repeated ends. They have a longer
    /// limit, are sent even while the breaker is open, and never open it.
    pub(crate) fn in_background(&self) -> Self {
        Self { in_background: true, ..self.clone() }
    }

    pub(crate) fn is_immediate(&self) -> bool {
        self.immediate
    }

    /// Appends a batch without waiting. `None`: the store cannot, panicked, or is not waited for.
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

    /// The part of the store that a stream is in.
    pub(crate) fn part(&self, key: &StreamKey) -> u64 {
        self.store.part(key)
    }

    /// Whether the part of the store that a stream is in failed and is not waited for.
    pub(crate) fn is_broken(&self, key: &StreamKey) -> bool {
        self.gates.any_open() && self.gates.of(self.part(key)).is_open()
    }

    /// Whether the part of the store that a stream is in takes no writes or beats of this node, so that other nodes cannot
    /// reach it there either.
    pub(crate) fn is_mute(&self, key: &StreamKey) -> bool {
        self.is_broken(key) || self.gates.has_refused(self.part(key))
    }

    /// Whether all parts of the store have failed.
    pub(crate) fn is_away(&self) -> bool {
        self.gates.any_open() && self.gates.count_open() >= self.store.parts().max(1)
    }

    /// Whether any part of the store has failed.
    pub(crate) fn is_ailing(&self) -> bool {
        self.gates.any_open()
    }

    /// Whether a part of the store has failed, and until when it must not be asked. `None`: it may be asked now.
    pub(crate) fn part_closed_until(&self, part: u64) -> (bool, Option<Instant>) {
        if !self.gates.any_open() {
            return (false, None);
        }
        let gate = self.gates.of(part);
        (gate.is_open(), gate.closed_until())
    }

    /// How often a part of the store answered again after a failure. The waker is woken when it does so the next time. There
    /// is one waker, the flusher's.
    pub(crate) fn healed(&self, part: u64, waker: &Waker) -> u64 {
        self.gates.of(part).healed(waker)
    }

    /// Notes that the store answers again, and wakes whoever waits in [`back`](Self::back).
    pub(crate) fn came_back(&self) {
        self.back.notify_one();
    }

    /// Waits until the store answers again after an outage. Only the guardian waits for that.
    pub(crate) async fn back(&self) {
        self.back.notified().await;
    }

    /// Sends a beat. It is always sent, since other nodes judge this one by it, and it neither counts as a probe nor delays
    /// one. But if the store takes it within the time limit of a write, that closes a breaker.
    pub(crate) async fn send_beat(&self, beat: Beat) -> Result<Beaten, StoreError> {
        let asked = Instant::now();
        let beaten = self.beat(beat).await;
        self.gates.note_refused(beaten.as_ref().ok().map(|beaten| beaten.refused_by.clone()));
        let beaten = beaten?;
        if asked.elapsed() <= self.limits.write && self.gates.note_beat_taken(&beaten.taken_by) {
            self.came_back();
        }
        Ok(beaten)
    }

    /// The breaker that a request is subject to: that of its stream's part. A request without a stream has one only if the
    /// store has a single part.
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
                // A slow read does not prove that writes are answered in time.
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

    /// Waits for an answer, at most for `limit`. A panic of the host's store counts as a failed request.
    async fn answer<T>(&self, operation: &'static str, limit: Duration, request: Answer<T>) -> Result<T, StoreError> {
        let mut request = Guarded::new(request);
        // A request that is answered at its first poll needs neither a timer nor a runtime. One that is begun outside a
        // runtime, by the drop of a request's future, gets its timer when it is polled within one.
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
                // Boxed, so that the future is small for requests that are answered at once.
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
