//! The faults that a test has set on a proxy, the proxy's connections, and their counters.

use std::{
    mem,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::End;

/// What a control has decided for a generation of connections: for all that were accepted between two cuts.
pub(super) type Cut = Option<Fate>;

/// The fate of connections.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    End(End),
    /// The connections stay open, and nothing passes any more.
    Strand,
}

pub(super) struct Controls {
    faults: watch::Sender<Faults>,
    /// The current generation: each open connection holds a receiver.
    generation: Mutex<watch::Sender<Cut>>,
    /// The bytes that may still go to the server before all connections end.
    allowance: Mutex<Option<u64>>,
    pub(super) connections: Counter,
    pub(super) request_bytes: Counter,
    pub(super) reply_bytes: Counter,
}

#[derive(Clone, Copy)]
pub(super) struct Faults {
    pub(super) server: SocketAddr,
    pub(super) refuse: bool,
    pub(super) freeze: bool,
    pub(super) drop_replies: bool,
    pub(super) delay: Duration,
}

impl Controls {
    pub(super) fn new(server: SocketAddr) -> Self {
        let faults = Faults { server, refuse: false, freeze: false, drop_replies: false, delay: Duration::ZERO };
        Self {
            faults: watch::Sender::new(faults),
            generation: Mutex::new(watch::Sender::new(None)),
            allowance: Mutex::new(None),
            connections: Counter::default(),
            request_bytes: Counter::default(),
            reply_bytes: Counter::default(),
        }
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Faults)) {
        self.faults.send_modify(change);
    }

    pub(super) fn faults(&self) -> Faults {
        *self.faults.borrow()
    }

    /// Waits until the proxy is not frozen.
    pub(super) async fn thawed(&self) {
        let mut faults = self.faults.subscribe();
        let thawed = faults.wait_for(|faults| !faults.freeze).await;
        thawed.expect("the sender lives as long as `self`");
    }

    /// Adds a connection to the current generation. It leaves when the receiver is dropped.
    pub(super) fn join(&self) -> watch::Receiver<Cut> {
        lock(&self.generation).subscribe()
    }

    pub(super) fn open(&self) -> usize {
        lock(&self.generation).receiver_count()
    }

    /// Ends all connections of the current generation. They are gone once the returned sender has no receivers.
    pub(super) fn cut(&self, end: End) -> watch::Sender<Cut> {
        self.end_generation(Fate::End(end))
    }

    pub(super) fn strand(&self) {
        drop(self.end_generation(Fate::Strand));
    }

    fn end_generation(&self, fate: Fate) -> watch::Sender<Cut> {
        let generation = mem::replace(&mut *lock(&self.generation), watch::Sender::new(None));
        generation.send_replace(Some(fate));
        generation
    }

    pub(super) fn cut_after(&self, bytes: u64) {
        *lock(&self.allowance) = Some(bytes);
    }

    /// Returns how many of the next `bytes` bytes may go to the server, and whether all connections end after them.
    pub(super) fn allow(&self, bytes: usize) -> (usize, bool) {
        let mut allowance = lock(&self.allowance);
        let Some(left) = *allowance else { return (bytes, false) };
        let allowed = usize::try_from(left).map_or(bytes, |left| left.min(bytes));
        *allowance = Some(left - allowed as u64).filter(|left| *left > 0);
        (allowed, allowance.is_none())
    }
}

#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: usize) {
        self.0.fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
