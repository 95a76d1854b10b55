//! Short functions for requests, and for waiting.

use std::{
    future::poll_fn,
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use resilient_sse::{
    EventId, Frame, NodeId, Origin, Owner, Record, RecordKind, RedisStore, StreamId, StreamInfo, StreamKey,
    StreamState, reason,
    store::{
        Append, Appended, Beat, Close, Closed, Interrupt, Interrupted, List, Open, Opened, Page, Publish, Published,
        Read, ReadFrom, Reopen, Retention, Store as _, Tail,
    },
    wire::{Framing as _, Sse, single_events},
};

pub const LONG: Duration = Duration::from_secs(600);
/// A claim that leaves the time to the store's own clock.
pub const ALL: Option<u64> = Some(1 << 52);
/// The time after which a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn connect(url: &str) -> RedisStore {
    RedisStore::connect(url).await.unwrap()
}

/// Ada's stream, `YWRh/<id>` to the store.
pub fn key(id: &str) -> StreamKey {
    StreamKey::new(Owner::new("ada").unwrap(), StreamId::new(id).unwrap())
}

pub const fn retention() -> Retention {
    Retention { stale: LONG, lifetime: LONG, recovery_window: LONG, max_events: 10_000, max_bytes: 1 << 20 }
}

fn token() -> u128 {
    static RANDOM: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    u128::from(RANDOM.hash_one("token")) << 64 | u128::from(next)
}

pub fn open(id: &str) -> Open {
    Open {
        key: key(id),
        kind: "check".into(),
        origin: Origin::Named,
        node: NodeId::new("node-1"),
        token: token(),
        create: true,
        reruns: true,
        started: false,
        fingerprint: None,
        limit: None,
        metadata: Vec::new(),
        voice: resilient_sse::Voice::default(),
        turn: None,
        headers: resilient_sse::KeptHeaders::None,
        retention: retention(),
    }
}

pub async fn open_as(store: &RedisStore, open: Open) -> u64 {
    match store.open(open).await.unwrap() {
        Opened::New { epoch, .. } => epoch,
        other => panic!("not the caller's: {other:?}"),
    }
}

pub async fn begin(store: &RedisStore, id: &str) -> (StreamKey, u64) {
    (key(id), open_as(store, open(id)).await)
}

pub fn block(data: &str) -> Bytes {
    Bytes::from(format!("data: {data}\n"))
}

/// An event as it goes over the wire.
pub fn delivered(epoch: u64, seq: u64, data: &str) -> String {
    format!("data: {data}\nid: e{epoch}-{seq}\n\n")
}

pub fn append<T: AsRef<str>>(key: &StreamKey, epoch: u64, first: u64, data: &[T]) -> Append {
    let event = |(data, seq): (&T, u64)| delivered(epoch, seq, data.as_ref());
    let bytes: String = data.iter().zip(first..).map(event).collect();
    let events = Frame { count: data.len() as u64, bytes: Bytes::from(bytes) };
    Append {
        key: key.clone(),
        epoch,
        starts: false,
        first,
        events,
        inner_id: None,
        inner_retry: None,
        metadata: Vec::new(),
    }
}

pub async fn put(store: &RedisStore, append: Append) -> Appended {
    store.append(vec![append]).await.unwrap().remove(0)
}

pub async fn write<T: AsRef<str>>(store: &RedisStore, key: &StreamKey, epoch: u64, first: u64, data: &[T]) {
    assert_eq!(put(store, append(key, epoch, first, data)).await, Appended::Stored);
}

pub fn close(key: &StreamKey, epoch: u64) -> Close {
    let ending = resilient_sse::Ending::supplied(StreamState::Failed, reason::ERROR);
    Close { key: key.clone(), epoch: Some(epoch), ending, last: None, if_deadline: None, hook: None }
}

pub async fn finish(store: &RedisStore, close: Close) -> resilient_sse::Ended {
    match store.close(close).await.unwrap() {
        Closed::Now { ended, .. } => ended,
        other => panic!("not closed: {other:?}"),
    }
}

pub fn interrupt(key: &StreamKey, epoch: u64) -> Interrupt {
    Interrupt { key: key.clone(), epoch, last: None, if_deadline: None }
}

pub async fn stand_still(store: &RedisStore, key: &StreamKey, epoch: u64) {
    assert_eq!(store.interrupt(interrupt(key, epoch)).await.unwrap(), Interrupted::Done);
}

pub fn reopen(open: Open, epoch: u64, acknowledged: u64) -> Reopen {
    Reopen {
        open: Open { started: true, ..open },
        epoch,
        acknowledged,
        inner_id: None,
        inner_retry: None,
        since: Duration::ZERO,
    }
}

pub fn event(id: &str, data: &str) -> Publish {
    Publish {
        key: key(id),
        kind: "check".into(),
        block: Bytes::from(format!("data: {data}\nid: ")),
        after_id: Bytes::from_static(b"\n\n"),
        ends: None,
        idempotency_key: None,
        hook: None,
        retention: retention(),
    }
}

/// A terminal event.
pub fn last(id: &str, data: &str) -> Publish {
    Publish { block: block(data), after_id: Bytes::new(), ends: Some(StreamState::Completed), ..event(id, data) }
}

pub async fn send(store: &RedisStore, publish: Publish) -> EventId {
    match store.publish(publish).await.unwrap() {
        Published::Stored(id) => id,
        other => panic!("not stored: {other:?}"),
    }
}

pub fn beat(streams: &[(StreamKey, u64)]) -> Beat {
    Beat { node: NodeId::new("node-1"), streams: streams.into(), stale: LONG, lifetime: LONG }
}

pub async fn list(store: &RedisStore, owner: Owner) -> Vec<StreamInfo> {
    store.list(List { owner, after: None, limit: 1000 }).await.unwrap().streams
}

pub async fn read(store: &RedisStore, key: &StreamKey, from: ReadFrom) -> Option<Page> {
    let read = Read { key: key.clone(), from, max_events: usize::MAX, max_bytes: usize::MAX };
    store.read(read).await.unwrap()
}

/// Returns the log's records, one for each event.
pub async fn page(store: &RedisStore, key: &StreamKey, from: ReadFrom) -> Page {
    let mut page = read(store, key, from).await.expect("the stream is held");
    let after = if let ReadFrom::After(at) = from { Some(at) } else { None };
    let singles = page.records.into_iter().flat_map(|record| single_events(&Sse, record));
    page.records = singles.filter(|record| Some(record.id) > after).collect();
    page
}

pub async fn info(store: &RedisStore, key: &StreamKey) -> StreamInfo {
    store.info(key.clone()).await.unwrap().expect("the stream is held")
}

/// A record in short: `r` a run's start, `e` the end, else the event's data.
pub fn brief(record: &Record) -> String {
    match &record.kind {
        RecordKind::Run { .. } => "r".to_owned(),
        RecordKind::End(_) => "e".to_owned(),
        RecordKind::Events(event) => Sse.view(&event.bytes).data.into_owned(),
    }
}

pub async fn held(store: &RedisStore, key: &StreamKey) -> Vec<String> {
    page(store, key, ReadFrom::Start).await.records.iter().map(brief).collect()
}

/// The events that are held, without markers and end: seqs and data.
pub async fn events(store: &RedisStore, key: &StreamKey) -> Vec<(EventId, String)> {
    let records = page(store, key, ReadFrom::Start).await.records;
    let events = records.iter().filter(|record| matches!(record.kind, RecordKind::Events(_)));
    events.map(|record| (record.id, brief(record))).collect()
}

/// Repeats a check until it holds.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let is_so = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, is_so).await.is_ok(), "never came true: {what}");
}

/// Begins to wait, and discards earlier wake-ups.
pub async fn wait(tail: &mut Tail) {
    poll_fn(|cx| {
        while tail.poll_changed(cx).is_ready() {}
        std::task::Poll::Ready(())
    })
    .await;
}

/// Waits for a wake-up, as long as a lost message may go unnoticed.
pub async fn woken(tail: &mut Tail, by: &str) {
    let changed = poll_fn(|cx| tail.poll_changed(cx));
    assert!(tokio::time::timeout(Duration::from_secs(2), changed).await.is_ok(), "not woken by {by}");
}
