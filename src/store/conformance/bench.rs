//! The common parts of the checks: a store, short forms of its requests, and waiting with a time limit.

use std::{borrow::Cow, future::poll_fn, ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    model::{
        id::{EventId, NodeId, Owner, StreamId, StreamKey},
        metadata::Metadata,
        stream::{Ended, Ending, Frame, Origin, Record, RecordKind, StreamInfo, StreamState, reason},
    },
    store::{
        Append, Appended, Beat, Beaten, Close, Closed, Due, Interrupt, Interrupted, List, Notices, Open, Opened, Page,
        Publish, Published, Read, ReadFrom, Reopen, Retention, Store, Tail,
    },
    wire::{Sse, single_events},
};

/// How long a check waits for the store to reach an expected state.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two requests while a check waits.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// The retention for a check that waits for a deadline to pass.
pub(super) const SOON: Duration = Duration::from_millis(40);
/// A retention that does not pass during a check.
pub(super) const LONG: Duration = Duration::from_secs(600);
/// A claim far in the future, so that the store's own clock decides.
pub(super) const ALL: Option<u64> = Some(1 << 52);

/// A store, with the owner and the node that use it. Clones share the store.
pub(super) struct Bench<S> {
    store: Arc<S>,
    pub(super) owner: Owner,
    pub(super) node: NodeId,
}

impl<S> Clone for Bench<S> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), owner: self.owner.clone(), node: self.node.clone() }
    }
}

impl<S> Deref for Bench<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.store
    }
}

/// Returns a retention long enough that nothing expires during a check.
pub(super) const fn retention() -> Retention {
    Retention { stale: LONG, lifetime: LONG, recovery_window: LONG, max_events: 10_000, max_bytes: 1 << 20 }
}

pub(super) fn owner(name: &str) -> Owner {
    Owner::new(name).expect("a valid owner")
}

/// Returns events in their form on the wire. The first one has this id.
pub(super) fn frame(first: EventId, data: &[&str]) -> Frame {
    let event = |(data, seq)| format!("data: {data}\nid: {}\n\n", EventId::new(first.epoch, seq));
    let bytes: String = data.iter().zip(first.seq..).map(event).collect();
    Frame { count: data.len() as u64, bytes: Bytes::from(bytes) }
}

/// Returns how many bytes an event takes in a log.
pub(super) fn size(id: EventId, data: &str) -> usize {
    frame(id, &[data]).bytes.len()
}

pub(super) fn finished(data: &str) -> Ending {
    Ending::with_event(StreamState::Completed, Bytes::from(format!("data: {data}\n")))
}

pub(super) fn close(key: &StreamKey, epoch: Option<u64>) -> Close {
    let ending = Ending::supplied(StreamState::Failed, reason::ERROR);
    Close { key: key.clone(), epoch, ending, last: None, if_deadline: None, hook: None }
}

pub(super) fn interrupt(key: &StreamKey, epoch: u64) -> Interrupt {
    Interrupt { key: key.clone(), epoch, last: None, if_deadline: None }
}

pub(super) fn append(key: &StreamKey, epoch: u64, first: u64, data: &[&str]) -> Append {
    let events = frame(EventId::new(epoch, first), data);
    Append {
        key: key.clone(),
        epoch,
        starts: false,
        first,
        events,
        inner_id: None,
        inner_retry: None,
        metadata: Metadata::new(),
    }
}

pub(super) fn reopen(open: Open, epoch: u64, acknowledged: u64) -> Reopen {
    Reopen {
        open: Open { started: true, ..open },
        epoch,
        acknowledged,
        inner_id: None,
        inner_retry: None,
        since: Duration::ZERO,
    }
}

pub(super) fn epoch_of(opened: &Opened) -> u64 {
    match opened {
        Opened::New { epoch, .. } => *epoch,
        other => panic!("not the caller's: {other:?}"),
    }
}

/// Returns the records of a page as short texts: `r` for the start of a run, `e` for the end, else the data of an
/// event.
pub(super) fn brief(page: &Page) -> Vec<String> {
    singles(page).iter().map(|(record, data)| data.clone().unwrap_or_else(|| word(record).to_owned())).collect()
}

fn word(record: &Record) -> &'static str {
    if matches!(record.kind, RecordKind::Run { .. }) { "r" } else { "e" }
}

/// Returns the records of a page, each event as a record of its own, with its data.
pub(super) fn singles(page: &Page) -> Vec<(Record, Option<String>)> {
    let data = |record: Record| match &record.kind {
        RecordKind::Events(frame) => {
            let event = String::from_utf8_lossy(&frame.bytes).into_owned();
            let id = format!("\nid: {}\n\n", record.id);
            let data = event.strip_prefix("data: ").and_then(|event| event.strip_suffix(&id)).map(str::to_owned);
            assert!(data.is_some(), "not the event {}: {event:?}", record.id);
            (record, data)
        }
        RecordKind::Run { .. } | RecordKind::End(_) => (record, None),
    };
    page.records.iter().cloned().flat_map(|record| single_events(&Sse, record)).map(data).collect()
}

/// Waits for a wake-up.
pub(super) async fn woken(tail: &mut Tail, why: &str) {
    let changed = poll_fn(|cx| tail.poll_changed(cx));
    assert!(tokio::time::timeout(PATIENCE, changed).await.is_ok(), "nobody was woken by {why}");
}

/// Consumes the wake-ups that have come already.
pub(super) async fn settle(tail: &mut Tail) {
    while tokio::time::timeout(SOON, poll_fn(|cx| tail.poll_changed(cx))).await.is_ok() {}
}

impl<S: Store> Bench<S> {
    pub(super) fn new(store: S) -> Self {
        Self { store: Arc::new(store), owner: owner("alice"), node: NodeId::new("node-1") }
    }

    /// Returns all streams of the owner, read in small pages.
    pub(super) async fn listed(&self) -> Vec<StreamInfo> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let list = List { owner: self.owner.clone(), after, limit: 2 };
            let page = self.store.list(list).await.expect("the store answers");
            assert!(page.streams.len() <= 2, "{page:?}");
            all.extend(page.streams);
            after = page.next;
            if after.is_none() {
                return all;
            }
        }
    }

    /// Returns the same store, used by another owner.
    pub(super) fn of(&self, name: &str) -> Self {
        Self { owner: owner(name), ..self.clone() }
    }

    /// Returns the same store, used anonymously.
    pub(super) fn of_nobody(&self) -> Self {
        Self { owner: Owner::ANONYMOUS, ..self.clone() }
    }

    /// Returns the same store, used by another node.
    pub(super) fn on(&self, node: &str) -> Self {
        Self { node: NodeId::new(node), ..self.clone() }
    }

    pub(super) fn key(&self, id: &str) -> StreamKey {
        StreamKey::new(self.owner.clone(), StreamId::new(id).expect("a valid id"))
    }

    /// Returns a request to open a stream that may be run again.
    pub(super) fn request(&self, id: &str) -> Open {
        Open {
            key: self.key(id),
            kind: Cow::Borrowed("check"),
            origin: Origin::Named,
            node: self.node.clone(),
            token: crate::runtime::random::u128(),
            create: true,
            reruns: true,
            started: false,
            fingerprint: None,
            limit: None,
            metadata: Metadata::new(),
            voice: crate::Voice::default(),
            turn: None,
            headers: crate::KeptHeaders::None,
            retention: retention(),
        }
    }

    pub(super) async fn ask(&self, open: Open) -> Opened {
        self.open(open).await.expect("the store answers")
    }

    /// Opens a stream, and returns its key and epoch. Panics if the caller did not become the producer.
    pub(super) async fn begin(&self, id: &str) -> (StreamKey, u64) {
        (self.key(id), epoch_of(&self.ask(self.request(id)).await))
    }

    /// Opens a stream and makes the store forget it, as if the store had lost its data. Returns the epoch.
    pub(super) async fn begin_forgotten(&self, open: Open) -> u64 {
        let (key, token) = (open.key.clone(), open.token);
        let epoch = epoch_of(&self.ask(open).await);
        self.withdraw(key.clone(), token).await.expect("the store answers");
        assert_eq!(self.known(&key).await, None);
        epoch
    }

    pub(super) async fn put(&self, append: Append) -> Appended {
        let mut outcomes = self.append(vec![append]).await.expect("the store answers");
        assert_eq!(outcomes.len(), 1, "one outcome for each element");
        outcomes.remove(0)
    }

    /// Appends events. Panics if they are not stored.
    pub(super) async fn write(&self, key: &StreamKey, epoch: u64, first: u64, data: &[&str]) {
        assert_eq!(self.put(append(key, epoch, first, data)).await, Appended::Stored);
    }

    pub(super) async fn end(&self, close: Close) -> Closed {
        self.close(close).await.expect("the store answers")
    }

    /// Records in the store that the producer has begun to answer.
    pub(super) async fn start(&self, key: &StreamKey, epoch: u64) {
        let starts = Append { starts: true, ..append(key, epoch, 1, &[]) };
        assert_eq!(self.put(starts).await, Appended::Stored);
    }

    /// Ends a stream. Panics if it had ended before.
    pub(super) async fn finish(&self, key: &StreamKey, epoch: u64) -> Ended {
        match self.end(close(key, Some(epoch))).await {
            Closed::Now { ended, .. } => ended,
            other => panic!("not closed: {other:?}"),
        }
    }

    pub(super) async fn stand_still(&self, key: &StreamKey, epoch: u64) {
        let outcome = self.interrupt(interrupt(key, epoch)).await.expect("the store answers");
        assert_eq!(outcome, Interrupted::Done);
    }

    pub(super) async fn known(&self, key: &StreamKey) -> Option<StreamInfo> {
        self.info(key.clone()).await.expect("the store answers")
    }

    /// Returns the info of a stream. Panics if the stream is not held.
    pub(super) async fn info_of(&self, key: &StreamKey) -> StreamInfo {
        self.known(key).await.expect("the stream is held")
    }

    pub(super) async fn page(
        &self,
        key: &StreamKey,
        from: ReadFrom,
        max_events: usize,
        max_bytes: usize,
    ) -> Option<Page> {
        let read = Read { key: key.clone(), from, max_events, max_bytes };
        self.read(read).await.expect("the store answers")
    }

    /// Returns a page with everything after a cursor, each event as a record of its own.
    pub(super) async fn after(&self, key: &StreamKey, at: EventId) -> Page {
        let mut page = self.all(key, ReadFrom::After(at)).await;
        page.records = singles(&page).into_iter().map(|(record, _)| record).filter(|record| record.id > at).collect();
        page
    }

    /// Returns a page without a size limit. Panics if the stream is not held.
    pub(super) async fn all(&self, key: &StreamKey, from: ReadFrom) -> Page {
        self.page(key, from, usize::MAX, usize::MAX).await.expect("the stream is held")
    }

    /// Returns the whole log as short texts, including markers and the end.
    pub(super) async fn held(&self, key: &StreamKey) -> Vec<String> {
        brief(&self.all(key, ReadFrom::Start).await)
    }

    pub(super) async fn end_all(&self, closes: Vec<Close>) -> Vec<Option<Closed>> {
        self.store.close_all(closes).await.expect("the store answers")
    }

    pub(super) async fn heartbeat(&self, streams: &[(StreamKey, u64)], stale: Duration) -> Beaten {
        let beat = Beat { node: self.node.clone(), streams: streams.into(), stale, lifetime: LONG };
        self.beat(beat).await.expect("the store answers")
    }

    /// Returns the notices to the bench's node, once they arrive. A store may begin to listen some time after `notices`.
    pub(super) async fn listening(&self) -> Notices {
        let mut notices = self.notices(&self.node);
        for n in 0.. {
            let (key, _) = self.begin(&format!("heard-{n}")).await;
            self.on("node-2").end(close(&key, None)).await;
            let heard = async { while poll_fn(|cx| notices.poll(cx)).await.streams.is_empty() {} };
            if tokio::time::timeout(Duration::from_millis(50), heard).await.is_ok() {
                break;
            }
            assert!(n < 200, "no notice arrives");
        }
        notices
    }

    /// Returns the store's clock, in unix milliseconds.
    pub(super) async fn now(&self) -> u64 {
        self.heartbeat(&[], LONG).await.now
    }

    pub(super) async fn sweep(&self, lease: Duration, claim: Option<u64>) -> Vec<Due> {
        self.due(100, lease, claim).await.expect("the store answers")
    }

    /// Sweeps until something is due.
    pub(super) async fn swept(&self, lease: Duration, claim: Option<u64>) -> Vec<Due> {
        let found = std::sync::Mutex::new(Vec::new());
        self.until("something is due", async || {
            let due = self.sweep(lease, claim).await;
            let any = !due.is_empty();
            crate::runtime::sync::lock(&found).extend(due);
            any
        })
        .await;
        found.into_inner().expect("not poisoned")
    }

    pub(super) fn event(&self, id: &str, data: &str) -> Publish {
        Publish {
            key: self.key(id),
            kind: Cow::Borrowed("check"),
            block: Bytes::from(format!("data: {data}\nid: ")),
            after_id: Bytes::from_static(b"\n\n"),
            ends: None,
            idempotency_key: None,
            hook: None,
            retention: retention(),
        }
    }

    /// Returns a request to publish a terminal event.
    pub(super) fn last(&self, id: &str, data: &str, ends: StreamState) -> Publish {
        let block = Bytes::from(format!("data: {data}\n"));
        Publish { block, after_id: Bytes::new(), ends: Some(ends), ..self.event(id, data) }
    }

    pub(super) async fn send(&self, publish: Publish) -> Published {
        self.publish(publish).await.expect("the store answers")
    }

    /// Publishes an event, and returns its id. Panics if it is not stored.
    pub(super) async fn sent(&self, publish: Publish) -> EventId {
        match self.send(publish).await {
            Published::Stored(id) => id,
            other => panic!("not stored: {other:?}"),
        }
    }

    /// Waits until a condition holds. Panics after `PATIENCE`.
    pub(super) async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !is_so().await {
            assert!(Instant::now() < give_up, "never came true: {what}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Waits until the store's clock has reached a time in unix milliseconds.
    pub(super) async fn until_clock(&self, at: u64) {
        self.until("the store's clock moves", async || self.now().await >= at).await;
    }
}
