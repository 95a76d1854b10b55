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
    runtime::sync::lock,
    store::{
        Append, Appended, Beat, Close, Expected, Interrupt, Notices, Open, Opened, Place, Point, Publish, Read,
        ReadFrom, Reopen, Retention, Store as _, Tail,
    },
};

pub(super) fn key(id: &str) -> StreamKey {
    StreamKey::new(Owner::new("ada").expect("valid"), StreamId::new(id).expect("valid"))
}

/// One event of the stream `a`, published without a producer.
pub(super) fn publication() -> Publish {
    Publish {
        after_id: Bytes::new(),
        key: key("a"),
        kind: "job".into(),
        block: Bytes::from_static(b"data: x\n"),
        ends: None,
        idempotency_key: None,
        hook: None,
        retention: open("a", 0).retention,
    }
}

pub(super) fn open(id: &str, token: u128) -> Open {
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
    let publish = publication();
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
    let waiting: usize = store.0.shards.iter().map(|shard| lock(shard).waiting.len()).sum();
    assert!(waiting <= super::store::SHARDS * 16, "{waiting} are remembered");
}

/// A store is empty only if nothing is left in any of its parts.
#[test]
fn every_part_counts_for_a_store_to_be_empty() {
    type Fill<'a> = &'a dyn Fn(&MemoryStore);
    let first = |store: &MemoryStore, fill: fn(&mut super::shard::Shard)| fill(&mut lock(&store.0.shards[0]));
    let parts: [(&str, Fill<'_>); 6] = [
        ("a stream", &|store| {
            first(store, |shard| {
                let _ = shard.open(&open("a", 1), false, 1, &mut crate::store::tail::Woken::default());
                shard.timers.clear();
            });
        }),
        ("a timer", &|store| first(store, |shard| assert!(shard.timers.insert((1, key("a")))))),
        ("a tail", &|store| first(store, |shard| drop(shard.waiting.insert(key("a"), Arc::default())))),
        ("an epoch", &|store| first(store, |shard| assert!(shard.removed.insert(key("a"), 1).is_none()))),
        ("an owner", &|store| lock(&store.0.owners).insert(&key("a"))),
        ("a pointer", &|store| {
            let place = Place { epoch: 1, since: Duration::ZERO };
            let (conversation, ttl) = (key("talk"), Duration::from_secs(60));
            let point = Point { conversation, stream: key("a").id, place, expected: Expected::Nothing, ttl };
            let _ = store.point(point).now_or_never();
        }),
    ];
    assert!(MemoryStore::new().is_empty());
    for (part, fill) in parts {
        let store = MemoryStore::new();
        fill(&store);
        assert!(!store.is_empty(), "{part} is left");
    }
}

/// A stream is followed if somebody else than the caller holds a tail of it.
#[test]
fn who_holds_a_tail_follows() {
    let store = MemoryStore::new();
    epoch_of(&store.open(open("a", 1)).now_or_never().expect("the store answers at once"));
    let is_followed = || (store.is_followed(&key("a")), store.is_followed_beside(&key("a"), 1));
    assert_eq!(is_followed(), (false, false));
    let own = store.tail(&key("a"));
    assert_eq!(is_followed(), (true, false));
    let other = store.tail(&key("a"));
    assert_eq!(is_followed(), (true, true));
    drop((own, other));
    assert_eq!(is_followed(), (false, false));
}

/// The store appends without a future. A page ends before the entry that would make it larger than the request says.
#[test]
fn a_page_holds_as_many_entries_as_fit() {
    let store = MemoryStore::new();
    let epoch = epoch_of(&store.open(open("a", 1)).now_or_never().expect("the store answers at once"));
    // The holes keep the events apart.
    for seq in [1, 3, 5] {
        let bytes = Bytes::from(format!("data: x\nid: e{epoch}-{seq}\n\n"));
        let append = Append { first: seq, events: Frame { count: 1, bytes }, ..append(epoch) };
        assert_eq!(store.append_now(&append), Some(Appended::Stored));
    }
    let event = append(epoch).events.bytes.len();
    let page = |max_events, max_bytes| {
        let read = Read { key: key("a"), from: ReadFrom::Newest, max_events, max_bytes };
        let page = store.read(read).now_or_never().expect("the store answers at once").expect("it cannot fail");
        let page = page.expect("the stream is held");
        (page.records.len(), page.more)
    };
    assert_eq!(page(10, 3 * event), (3, false));
    assert_eq!(page(10, 3 * event - 1), (2, true));
    assert_eq!(page(10, 2 * event), (2, true));
    assert_eq!(page(10, 2 * event - 1), (1, true));
    assert_eq!((page(2, usize::MAX), page(3, usize::MAX)), ((2, true), (3, false)));
}

#[cfg(feature = "test-util")]
#[tokio::test(start_paused = true)]
async fn a_test_can_set_the_clock_of_the_store() {
    let store = MemoryStore::starting_at(1000);
    store.shift_clock(500);
    assert_eq!(store.now(), 1500);
    store.shift_clock(-700);
    assert_eq!(store.now(), 800);
}
