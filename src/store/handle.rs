//! A store of any type, behind one type: each request has a time limit, and a breaker watches.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, Sleep},
};

use super::{
    Append, Appended, Beat, Beaten, Close, Closed, Due, Interrupt, Interrupted, Notices, Open, Opened, Page, Publish,
    Published, Read, Reopen, Reopened, Store, Tail,
};
use crate::{
    config::{PROBE_EVERY, Settings},
    error::StoreError,
    id::{NodeId, Owner, StreamKey},
    panics::{Guarded, drop_guarded},
    protocol::breaker::Breaker,
    stream::StreamInfo,
    sync::{WakerCell, lock},
    telemetry::Telemetry,
};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Answer<T> = BoxFuture<Result<T, StoreError>>;

/// Makes the object-safe face of [`Store`] and its one implementation.
macro_rules! erased {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        trait ErasedStore: Send + Sync {
            $(fn $name(self: Arc<Self>, $($arg: $type),*) -> Answer<$out>;)*
            fn tail(&self, key: &StreamKey) -> Tail;
            fn is_followed_beside(&self, key: &StreamKey, here: usize) -> bool;
            fn notices(&self, node: &NodeId) -> Notices;
        }

        impl<S: Store> ErasedStore for S {
            $(fn $name(self: Arc<Self>, $($arg: $type),*) -> Answer<$out> {
                Box::pin(async move {
                    Store::$name(&*self, $($arg),*).await.map_err(|source| StoreError::failed(stringify!($name), source))
                })
            })*
            fn tail(&self, key: &StreamKey) -> Tail {
                Store::tail(self, key)
            }
            fn is_followed_beside(&self, key: &StreamKey, here: usize) -> bool {
                Store::is_followed_beside(self, key, here)
            }
            fn notices(&self, node: &NodeId) -> Notices {
                Store::notices(self, node)
            }
        }

        impl StoreHandle {
            $(pub(crate) async fn $name(&self, $($arg: $type),*) -> Result<$out, StoreError> {
                let limit = self.limit(stringify!($name));
                self.ask(stringify!($name), limit, || Arc::clone(&self.store).$name($($arg),*)).await
            })*
        }
    };
}

erased! {
    open(open: Open) -> Opened;
    withdraw(key: StreamKey, token: u128) -> ();
    append(appends: Vec<Append>) -> Vec<Appended>;
    close(close: Close) -> Closed;
    interrupt(interrupt: Interrupt) -> Interrupted;
    reopen(reopen: Reopen) -> Reopened;
    publish(publish: Publish) -> Published;
    read(read: Read) -> Option<Page>;
    info(key: StreamKey) -> Option<StreamInfo>;
    list(owner: Owner) -> Vec<StreamInfo>;
    active_count() -> u64;
    delete(key: StreamKey) -> ();
    beat(beat: Beat) -> Beaten;
    due(limit: usize, lease: Duration, claim: Option<u64>) -> Vec<Due>;
    stale(threshold: Duration, limit: usize) -> Vec<StreamInfo>;
    hook_done(key: StreamKey) -> ();
    announce(key: StreamKey) -> ();
}

/// The store as the rest of the crate sees it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StoreHandle {
    store: Arc<dyn ErasedStore>,
    immediate: bool,
    limit: Duration,
    open_limit: Duration,
    breaker: Arc<Gate>,
    /// Told when the store is back after it was away.
    back: Arc<Notify>,
    telemetry: Arc<Telemetry>,
}

/// The breaker, and its state where it is looked at for every event.
struct Gate {
    breaker: Mutex<Breaker>,
    open: AtomicBool,
    /// Something failed since the last success: only then does a success have anything to say to the breaker.
    unsettled: AtomicBool,
    /// How often the breaker closed, and whom to tell.
    healed: AtomicU64,
    healing: WakerCell,
}

impl StoreHandle {
    pub(crate) fn new(store: impl Store, settings: &Settings, telemetry: Arc<Telemetry>) -> Self {
        Self {
            immediate: store.is_immediate(),
            store: Arc::new(store),
            limit: settings.store_limit,
            open_limit: settings.open_limit,
            breaker: Arc::new(Gate {
                breaker: Mutex::new(Breaker::new(PROBE_EVERY)),
                open: AtomicBool::new(false),
                unsettled: AtomicBool::new(false),
                healed: AtomicU64::new(0),
                healing: WakerCell::default(),
            }),
            back: Arc::default(),
            telemetry,
        }
    }

    pub(crate) fn is_immediate(&self) -> bool {
        self.immediate
    }

    pub(crate) fn tail(&self, key: &StreamKey) -> Tail {
        self.store.tail(key)
    }

    pub(crate) fn is_followed_beside(&self, key: &StreamKey, here: usize) -> bool {
        self.store.is_followed_beside(key, here)
    }

    pub(crate) fn notices(&self, node: &NodeId) -> Notices {
        self.store.notices(node)
    }

    /// Whether the store failed, and is not waited for.
    pub(crate) fn is_broken(&self) -> bool {
        self.breaker.open.load(Ordering::Relaxed)
    }

    /// When the store may be asked next; `None` means now.
    pub(crate) fn closed_until(&self) -> Option<Instant> {
        if !self.is_broken() {
            return None;
        }
        lock(&self.breaker.breaker).wait_until(Instant::now().into_std()).map(Instant::from_std)
    }

    /// The store was away, and is back: whoever waits for that hears of it once.
    pub(crate) fn came_back(&self) {
        self.back.notify_one();
    }

    /// Ready once the store is back. One waits for that, the guardian.
    pub(crate) async fn back(&self) {
        self.back.notified().await;
    }

    /// How often the store answered again after it had failed; the waker is woken when it does the next time. One at a
    /// time: the flusher's.
    pub(crate) fn healed(&self, waker: &Waker) -> u64 {
        self.breaker.healing.register(waker);
        self.breaker.healed.load(Ordering::Relaxed)
    }

    fn limit(&self, operation: &str) -> Duration {
        if operation == "open" { self.open_limit } else { self.limit }
    }

    /// Asks, unless the breaker is open and no probe is due. A beat is always sent: it is what
    /// other nodes judge this one by.
    async fn ask<T>(
        &self,
        operation: &'static str,
        limit: Duration,
        request: impl FnOnce() -> Answer<T>,
    ) -> Result<T, StoreError> {
        let write = needs_room(operation);
        if self.is_broken() {
            let now = Instant::now().into_std();
            let mut breaker = lock(&self.breaker.breaker);
            let passes = breaker.lets_through(write);
            if !passes && breaker.wait_until(now).is_some() && operation != "beat" {
                return Err(StoreError::breaker_open(operation));
            }
            if !passes {
                breaker.asked(now);
            }
        }
        let answer = self.answer(operation, limit, request()).await;
        match &answer {
            Ok(_) => self.succeeded(write),
            Err(error) => self.failed(write, error),
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

    fn succeeded(&self, write: bool) {
        if !self.breaker.unsettled.load(Ordering::Relaxed) {
            return;
        }
        let mut breaker = lock(&self.breaker.breaker);
        if breaker.lets_through(write) {
            return;
        }
        self.breaker.unsettled.store(false, Ordering::Relaxed);
        if breaker.succeeded(write) {
            self.breaker.open.store(false, Ordering::Relaxed);
            self.breaker.healed.fetch_add(1, Ordering::Relaxed);
            self.telemetry.store_back();
            drop(breaker);
            self.came_back();
            self.breaker.healing.wake();
        }
    }

    fn failed(&self, write: bool, error: &StoreError) {
        self.telemetry.store_failed(error);
        let now = Instant::now().into_std();
        let mut breaker = lock(&self.breaker.breaker);
        self.breaker.unsettled.store(true, Ordering::Relaxed);
        let opened = if error.is_timeout() { breaker.timed_out(now) } else { breaker.errored(write, now) };
        if opened {
            self.breaker.open.store(true, Ordering::Relaxed);
            self.telemetry.store_lost(error);
        }
    }
}

/// Whether a request is one that a full store refuses: it answers readers, and takes what frees memory.
fn needs_room(operation: &str) -> bool {
    matches!(operation, "open" | "append" | "reopen" | "publish" | "beat")
}
