//! What is particular to the memory store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::MemoryStore;
use crate::{
    Ending, Frame, NodeId, Origin, Owner, StreamId, StreamKey, StreamState, reason,
    store::{Append, Beat, Close, Interrupt, Notices, Open, Opened, Publish, Reopen, Retention, Store as _, Tail},
};

fn key(id: &str) -> StreamKey {
    StreamKey::new(Owner::new("ada").expect("valid"), StreamId::new(id).expect("valid"))
}

fn open(id: &str, token: u128) -> Open {
    let minute = Duration::from_secs(60);
    Open {
        key: key(id),
        kind: "check".into(),
        origin: Origin::Named,
        node: NodeId::new("node"),
        token,
        create: true,
        reruns: true,
        started: false,
        fingerprint: None,
        limit: Some(100),
        metadata: Vec::new(),
        voice: crate::Voice::default(),
        turn: None,
        headers: crate::KeptHeaders::None,
        retention: Retention {
            stale: Duration::ZERO,
            lifetime: minute,
            recovery_window: Duration::ZERO,
            max_events: 10,
            max_bytes: 1000,
        },
    }
}

/// A waker that asks the store for all that takes its locks.
struct Asks {
    store: MemoryStore,
    woken: AtomicUsize,
}

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        for id in ["a", "b", "never"] {
            let _ = self.store.info(key(id)).now_or_never();
            drop(self.store.tail(&key(id)));
            self.store.is_followed(&key(id));
        }
        let _ = self.store.list(crate::store::List { owner: key("a").owner, after: None, limit: 10 }).now_or_never();
        let _ = self.store.open(Open { create: false, ..open("never", 0) }).now_or_never();
        drop(self.store.notices(&NodeId::new("another")));
    }
}

/// Someone who waits for a stream, and for a node's post, all the time.
struct Follower {
    asks: Arc<Asks>,
    tail: Tail,
    notices: Notices,
}

impl Follower {
    fn new(store: &MemoryStore) -> Self {
        let asks = Arc::new(Asks { store: store.clone(), woken: AtomicUsize::new(0) });
        Self { asks, tail: store.tail(&key("a")), notices: store.notices(&NodeId::new("node")) }
    }

    /// Waits, has something done, and says whether that woke.
    fn wakes<T, F: Future<Output = T>>(&mut self, what: &str, done: impl FnOnce() -> F) -> T {
        let waker = Waker::from(Arc::clone(&self.asks));
        let mut cx = Context::from_waker(&waker);
        while self.tail.poll_changed(&mut cx).is_ready() {}
        while matches!(self.notices.poll(&mut cx), Poll::Ready(_)) {}
        let before = self.asks.woken.load(Ordering::SeqCst);
        let answer = done().now_or_never().expect("the store answers at once");
        assert!(self.asks.woken.load(Ordering::SeqCst) > before, "{what} wakes nobody");
        answer
    }
}

fn epoch_of(opened: &Result<Opened, std::convert::Infallible>) -> u64 {
    let Ok(Opened::New { epoch, .. }) = opened else { panic!("not the caller's: {opened:?}") };
    *epoch
}

fn append(epoch: u64) -> Append {
    let events = Frame { count: 1, bytes: Bytes::from(format!("data: x\nid: e{epoch}-1\n\n")) };
    Append {
        key: key("a"),
        epoch,
        starts: true,
        first: 1,
        events,
        inner_id: None,
        inner_retry: None,
        metadata: Vec::new(),
    }
}

fn close(id: &str) -> Close {
    let ending = Ending::supplied(StreamState::Failed, reason::ERROR);
    Close { key: key(id), epoch: None, ending, last: None, if_deadline: None, hook: None }
}

/// Takes a stream through all its transitions, with a waker that asks the store waiting for each.
fn every_transition() {
    let store = MemoryStore::new();
    let mut follower = Follower::new(&store);
    epoch_of(&follower.wakes("an opening", || store.open(open("a", 1))));
    let _ = follower.wakes("a withdrawal", || store.withdraw(key("a"), 1));
    let epoch = epoch_of(&follower.wakes("an opening after it", || store.open(open("a", 2))));
    let _ = follower.wakes("an append", || store.append(vec![append(epoch)]));
    let interrupt = || Interrupt { key: key("a"), epoch, last: None, if_deadline: None };
    let _ = follower.wakes("an interruption", || store.interrupt(interrupt()));
    epoch_of(&follower.wakes("a new run", || store.open(open("a", 3))));
    let _ = follower.wakes("its withdrawal", || store.withdraw(key("a"), 3));
    epoch_of(&follower.wakes("another run", || store.open(open("a", 4))));
    let _ = follower.wakes("an end, and its post", || store.close(close("a")));
    let _ = follower.wakes("a sweep of what has expired", || store.due(10, Duration::ZERO, Some(0)));
    let reopen = Reopen {
        open: open("a", 5),
        epoch: u64::MAX / 2,
        acknowledged: 3,
        inner_id: None,
        inner_retry: None,
        since: Duration::ZERO,
    };
    let _ = follower.wakes("registering again", || store.reopen(reopen));
    let _ = follower.wakes("a deletion", || store.delete(key("a")));
    std::thread::sleep(Duration::from_millis(2));
    let publish = Publish {
        after_id: Bytes::new(),
        key: key("a"),
        kind: "job".into(),
        block: Bytes::from_static(b"data: x\n"),
        ends: None,
        idempotency_key: None,
        hook: None,
        retention: open("a", 0).retention,
    };
    let _ = follower.wakes("a publication", || store.publish(publish.clone()));
    let ends = Some(StreamState::Completed);
    let _ = follower.wakes("a published end", || store.publish(Publish { ends, ..publish }));
    // A beat wakes nobody: it is here for its locks.
    let beat = Beat {
        node: NodeId::new("node"),
        streams: [(key("a"), 1)].into(),
        stale: Duration::ZERO,
        lifetime: Duration::ZERO,
    };
    let _ = store.beat(beat).now_or_never();
    #[cfg(feature = "test-util")]
    {
        follower.wakes("losing everything", || async { store.forget() });
        follower.wakes("coming back", || async { store.reconnected() });
    }
}

/// A waker may run an executor's code, also such as asks the store: none runs under the store's locks.
#[test]
fn g11_a_waker_may_ask_the_store() {
    let (done, wait) = mpsc::channel::<()>();
    let transitions = std::thread::spawn(move || {
        every_transition();
        drop(done);
    });
    let deadline = wait.recv_timeout(Duration::from_secs(20));
    assert_eq!(deadline, Err(mpsc::RecvTimeoutError::Disconnected), "a waker waits for a lock that it was woken under");
    assert!(transitions.join().is_ok());
}

/// Those who wait for streams that do not exist are found again at no more cost than that of coming.
#[test]
fn who_waits_no_more_for_a_missing_stream_is_forgotten() {
    let store = MemoryStore::new();
    for number in 0..100_000 {
        drop(store.tail(&key(&format!("s{number}"))));
    }
    let waiting: usize = store.0.shards.iter().map(|shard| crate::runtime::sync::lock(shard).waiting.len()).sum();
    assert!(waiting <= super::store::SHARDS * 16, "{waiting} are remembered");
}
