//! A hub on a store that can fail, a handler that makes events on a schedule, and a client that notes when each arrives.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::BoxBody};
use resilient_sse::{
    Builder, DrainReport, EventId, MemoryStore, Owner, RecordKind, ResilientSse, ResilientSseBody, ResilientSseLayer,
    Store, StreamContext, StreamId, StreamInfo, StreamKey,
    store::{Page, Read, ReadFrom},
    test_util::FaultStore,
    wire::{Framing as _, Parsed, Parser, Sse, single_events},
};
use serde_json::Value;
use tokio::{task::JoinHandle, time::Instant};
use tower::{ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneService};

pub(crate) type Answer = Response<ResilientSseBody<BoxBody<Bytes, Infallible>>>;

/// The script of the inner service's body.
#[derive(Clone, Copy)]
pub(crate) struct Script {
    /// The number of events.
    pub(crate) events: u64,
    /// The time before each event.
    pub(crate) every: Duration,
    /// The bytes of data that are added to each event's number.
    pub(crate) padding: usize,
    /// Whether the body has a terminal event before its end.
    pub(crate) terminal: bool,
    /// Whether the handler stores metadata with the stream.
    pub(crate) metadata: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self { events: 300, every: millis(20), padding: 0, terminal: true, metadata: false }
    }
}

impl Script {
    /// Returns how long the body takes.
    pub(crate) fn length(self) -> Duration {
        self.every * u32::try_from(self.events).unwrap()
    }

    /// Returns the handler's response. `made` counts its events.
    fn answer(self, made: Arc<AtomicU64>) -> Response<BoxBody<Bytes, Infallible>> {
        let start = Instant::now();
        let piece = move |number: u64| async move {
            tokio::time::sleep_until(start + self.every * u32::try_from(number.min(self.events)).unwrap()).await;
            if number > self.events {
                return Some(Bytes::from_static(b"event: completed\ndata: done\n\n"))
                    .filter(|_| self.terminal && number == self.events + 1)
                    .map(|end| (end, number + 1));
            }
            let padding = "x".repeat(self.padding);
            Some((Bytes::from(format!("data: {number} {padding}\n\n")), number + 1))
        };
        let frames = futures_util::stream::unfold(1, move |number| {
            let made = Arc::clone(&made);
            async move {
                let (bytes, next) = piece(number).await?;
                made.fetch_max(number.min(self.events), Ordering::SeqCst);
                Some((Ok::<_, Infallible>(Frame::data(bytes)), next))
            }
        });
        Response::builder().header("content-type", "text/event-stream").body(StreamBody::new(frames).boxed()).unwrap()
    }
}

/// A hub with a running guardian, on a store that fails on demand.
pub(crate) struct Rig {
    pub(crate) sse: ResilientSse,
    pub(crate) store: FaultStore<MemoryStore>,
    pub(crate) guardian: JoinHandle<DrainReport>,
    pub(crate) calls: Arc<AtomicUsize>,
    made: Arc<AtomicU64>,
    app: BoxCloneService<Request<Empty<Bytes>>, Answer, Infallible>,
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn key(id: &str) -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new(id).unwrap())
}

impl Rig {
    pub(crate) fn new(batched: bool, script: Script) -> Self {
        Self::with(batched, script, |hub| hub, |layer| layer)
    }

    pub(crate) fn with(
        batched: bool,
        script: Script,
        hub: impl FnOnce(Builder) -> Builder,
        layer: impl FnOnce(ResilientSseLayer) -> ResilientSseLayer,
    ) -> Self {
        let store = FaultStore::new(MemoryStore::new());
        let store = if batched { store.batched() } else { store };
        let (sse, guardian) = hub(ResilientSse::builder(store.clone()).anonymous().seed(1)).build().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let made = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&made);
        let inner = service_fn(move |request: Request<Empty<Bytes>>| {
            counted.fetch_add(1, Ordering::SeqCst);
            if script.metadata {
                let context = request.extensions().get::<StreamContext>().unwrap();
                context.metadata("job", "7").unwrap();
            }
            let made = Arc::clone(&counts);
            async move { Ok::<_, Infallible>(script.answer(made)) }
        });
        let layer = layer(sse.generation().id(StreamId::path("/chat/{id}")));
        let app = BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner));
        Self { sse, store, guardian: tokio::spawn(guardian), calls, made, app }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Returns the number of events that the inner bodies have made.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }

    pub(crate) async fn get(&self, id: &str, cursor: Option<&str>) -> Answer {
        let request = Request::get(format!("/chat/{id}")).header("accept", "text/event-stream");
        let request = cursor.iter().fold(request, |request, cursor| request.header("last-event-id", *cursor));
        self.app.clone().oneshot(request.body(Empty::new()).unwrap()).await.unwrap()
    }

    /// Connects a client to the stream `a`.
    pub(crate) async fn client(&self) -> JoinHandle<Vec<Seen>> {
        let start = Instant::now();
        tokio::spawn(watch(self.get("a", None).await.into_body(), start))
    }

    /// Reconnects to the stream `a` with a cursor, and returns the events that the client sees.
    pub(crate) async fn resume(&self, cursor: &str) -> Vec<Seen> {
        watch(self.get("a", Some(cursor)).await.into_body(), Instant::now()).await
    }

    /// Returns recovery's response for the stream `a`.
    pub(crate) async fn recover(&self) -> Value {
        let request = Request::get("/chat/a/recover").body(Empty::<Bytes>::new()).unwrap();
        let body = self.sse.recover().oneshot(request).await.unwrap().into_body().collect().await.unwrap();
        serde_json::from_slice(&body.to_bytes()).unwrap()
    }

    pub(crate) async fn info(&self) -> Option<StreamInfo> {
        self.store.inner().info(key("a")).await.unwrap()
    }

    pub(crate) async fn page(&self) -> Page {
        let read = Read { key: key("a"), from: ReadFrom::Start, max_events: usize::MAX, max_bytes: usize::MAX };
        self.store.inner().read(read).await.unwrap().unwrap()
    }

    /// Returns the numbers of the events in the log, and checks that each event's id has the same number.
    pub(crate) async fn recorded(&self) -> Vec<u64> {
        let event = |record: resilient_sse::Record| match record.kind {
            RecordKind::Events(event) => {
                let number = number(&Sse.view(&event.bytes).data);
                assert_eq!(record.id.seq, number, "an event with the id of another one");
                Some(number)
            }
            RecordKind::Run { .. } | RecordKind::End(_) => None,
        };
        let records = self.page().await.records.into_iter().flat_map(|record| single_events(&Sse, record));
        records.filter_map(event).collect()
    }
}

/// An event that a client saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The time since the client's request.
    pub(crate) at: Duration,
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) id: String,
}

impl Seen {
    pub(crate) fn number(&self) -> u64 {
        number(&self.data)
    }

    pub(crate) fn event_id(&self) -> EventId {
        self.id.parse().unwrap()
    }
}

fn number(data: &str) -> u64 {
    data.split_whitespace().next().unwrap().parse().unwrap()
}

/// Reads a body to its end.
pub(crate) async fn watch<B: Body<Error: std::fmt::Debug> + Unpin>(body: B, start: Instant) -> Vec<Seen> {
    watch_with(body, start, |_| {}).await
}

/// Reads a body to its end, and calls `on_event` for each event as it arrives.
pub(crate) async fn watch_with<B: Body<Error: std::fmt::Debug> + Unpin>(
    mut body: B,
    start: Instant,
    mut on_event: impl FnMut(&Seen),
) -> Vec<Seen> {
    let mut parser = Parser::new(1 << 20);
    let mut all = Vec::new();
    loop {
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return all,
            None => break,
        };
        let Ok(mut data) = frame.into_data() else { continue };
        parser.push(&data.copy_to_bytes(data.remaining())).unwrap();
        while let Some(parsed) = parser.pop() {
            let Parsed::Message(message) = parsed else { continue };
            let seen = Seen { at: start.elapsed(), name: message.name, data: message.data, id: message.last_event_id };
            on_event(&seen);
            all.push(seen);
        }
    }
    // Guarantee G12. An unrecorded stream has no ids, so its end cannot be checked.
    let last = all.last();
    let finished = last.is_some_and(|last| last.id.is_empty() || last.event_id().seq == 0);
    assert!(finished, "an unfinished stream looks finished: {last:?}");
    all
}

/// Returns the numbered events, without the terminal event and the library's notices.
pub(crate) fn numbered(seen: &[Seen]) -> impl Iterator<Item = &Seen> {
    seen.iter().filter(|seen| seen.name == "message")
}

/// Returns the delay of each event behind its schedule.
pub(crate) fn delays(seen: &[Seen], script: Script) -> Vec<(u64, Duration)> {
    let delay = |seen: &Seen| {
        let due = script.every * u32::try_from(seen.number()).unwrap();
        (seen.number(), seen.at.saturating_sub(due))
    };
    numbered(seen).map(delay).collect()
}

/// Asserts guarantee G1: every number from `first` to `last` came once, in order, or is in a gap. Returns how many are
/// in gaps.
pub(crate) fn account(seen: &[Seen], first: u64, last: u64) -> u64 {
    let (mut next, mut lost, mut gap) = (first, 0, None::<Value>);
    for seen in seen.iter().filter(|seen| seen.name != "connected") {
        if seen.name == "gap" {
            assert!(gap.is_none(), "two gaps in a row");
            gap = Some(serde_json::from_str(&seen.data).unwrap());
            continue;
        }
        let at = if seen.name == "message" { seen.number() } else { last + 1 };
        assert!(at >= next, "{at} came again");
        match gap.take() {
            None => assert_eq!(at, next, "events are missing without a gap"),
            Some(gap) => {
                assert!(at > next || gap["missed"].is_null(), "a gap where nothing is missing: {gap}");
                assert!(gap["missed"].is_null() || gap["missed"] == at - next, "{gap} for {next} to {at}");
                assert_eq!(gap["resumesAt"], seen.id, "{gap}");
                lost += at - next;
            }
        }
        next = at + 1;
    }
    assert_eq!(next, last + 2, "the last events or the end are missing");
    lost
}

/// Checks that a live client got every event as it was made, in order, and the terminal one.
pub(crate) fn assert_unharmed(seen: &[Seen], script: Script) {
    assert_eq!(account(seen, 1, script.events), 0, "a live client misses nothing");
    let epoch = numbered(seen).next().unwrap().event_id().epoch;
    for seen in numbered(seen) {
        assert_eq!(seen.data, format!("{} {}", seen.number(), "x".repeat(script.padding)));
        assert_eq!(seen.event_id(), EventId::new(epoch, seen.number()));
    }
    let end = seen.last().unwrap();
    assert_eq!((end.name.as_str(), end.data.as_str()), ("completed", "done"));
    assert_eq!(end.event_id(), EventId::terminal(epoch));
}
