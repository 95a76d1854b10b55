//! Three nodes that remember the runs they were given, and continue old runs too.

use std::{borrow::Cow, fmt::Debug, time::Duration};

use bytes::Bytes;
use resilient_sse::{
    Ending, Frame, KeptHeaders, MemoryStore, NodeId, Origin, Owner, RecordKind, Store as _, StreamId, StreamKey,
    StreamState, Voice, reason,
    store::{
        Append, Appended, Beat, Close, Closed, Due, DueReason, Fence, Interrupt, Interrupted, Open, Opened, Read,
        ReadFrom, Reopen, Reopened, Retention,
    },
    wire::{Sse, single_events},
};

use super::reference::Model;
use crate::support::random::Random;

const RETENTION: Retention = Retention {
    stale: Duration::from_millis(100),
    lifetime: Duration::from_millis(1000),
    recovery_window: Duration::from_millis(300),
    max_events: 10_000,
    max_bytes: 1 << 20,
};
const LIFETIME: u64 = 1000;
const WINDOW: u64 = 300;
const LEASE: Duration = Duration::from_millis(70);

/// A run that a node was given.
#[derive(Clone)]
struct Run {
    open: Open,
    epoch: u64,
    acknowledged: u64,
}

pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) model: Model,
    pub(crate) random: Random,
    keys: Vec<StreamKey>,
    runs: Vec<Run>,
}

/// The outcome's name, and its difference from the model's, if there is one.
pub(crate) type Step = (&'static str, Option<String>);

pub(crate) fn compare<T: PartialEq + Debug>(asked: &impl Debug, answer: &T, expected: &T) -> Option<String> {
    (answer != expected).then(|| format!("{asked:?}\n  answers {answer:?}\n  not     {expected:?}"))
}

impl World {
    pub(crate) fn new(start: u64, seed: u64) -> Self {
        let key = |(owner, id)| StreamKey::new(Owner::new(owner).unwrap(), StreamId::new(id).unwrap());
        Self {
            store: MemoryStore::starting_at(start),
            model: Model::at(start),
            random: Random(seed),
            keys: [("alice", "1"), ("alice", "2"), ("bob", "1")].map(key).to_vec(),
            runs: Vec::new(),
        }
    }

    /// One random request of one random node.
    pub(crate) async fn step(&mut self) -> Step {
        match self.random.below(22) {
            16..=21 => self.point().await,
            0..=3 => self.open().await,
            4..=7 => self.append().await,
            8 => self.close().await,
            9 => self.interrupt().await,
            10 => self.withdraw().await,
            11..=12 => self.beat().await,
            13..=14 => self.due().await,
            _ => self.reopen().await,
        }
    }

    async fn open(&mut self) -> Step {
        let repeated = self.runs.last().filter(|_| self.random.one_in(6)).map(|run| run.open.clone());
        let turn = self.turn();
        // A repeat may add more.
        let repeated = repeated.map(|open| Open { turn: open.turn.or(turn.clone()), ..open });
        let open = repeated.unwrap_or_else(|| Open {
            key: self.random.pick(&self.keys),
            kind: Cow::Borrowed(self.random.pick(&["chat", "chat", "chat", "chat", "export"])),
            origin: self.random.pick(&[
                Origin::Named,
                Origin::Named,
                Origin::Named,
                Origin::Named,
                Origin::Generated,
                Origin::Published,
            ]),
            node: NodeId::new(["one", "two", "three"][self.random.below(3) as usize]),
            token: u128::from(self.random.number()),
            create: !self.random.one_in(8),
            reruns: !self.random.one_in(4),
            started: self.random.one_in(5),
            fingerprint: self.random.pick(&[None, None, None, Some("one"), Some("two")]).map(str::to_owned),
            limit: None,
            metadata: Vec::new(),
            voice: Voice::default(),
            turn,
            headers: KeptHeaders::None,
            retention: RETENTION,
        });
        let answer = self.store.open(open.clone()).await.unwrap();
        let differs = compare(&open, &answer, &self.model.open(&open));
        let name = match answer {
            Opened::New { epoch, previous, .. } => {
                self.runs.push(Run { open, epoch, acknowledged: 0 });
                if previous.is_some() { "open again" } else { "open new" }
            }
            Opened::Active { .. } => "open active",
            Opened::Ended(_) => "open ended",
            Opened::OtherFingerprint => "open other fingerprint",
            Opened::OtherKind { .. } => "open other kind",
            Opened::Missing | Opened::OverLimit => "open missing",
            other => panic!("another outcome: {other:?}"),
        };
        (name, differs)
    }

    pub(crate) fn a_stream(&mut self) -> StreamKey {
        self.random.pick(&self.keys)
    }

    /// A run of some node: mostly a recent one, sometimes any earlier one.
    fn run(&mut self) -> Option<usize> {
        let runs = self.runs.len() as u64;
        let back = if self.random.one_in(4) { runs } else { runs.min(3) };
        (runs > 0).then(|| (runs - 1 - self.random.below(back)) as usize)
    }

    async fn append(&mut self) -> Step {
        let Some(index) = self.run() else { return ("nothing", None) };
        let run = self.runs[index].clone();
        // The batch begins after the acknowledged events, overlaps with them, or leaves a hole.
        let first = (run.acknowledged + 1).saturating_sub(self.random.pick(&[0, 0, 0, 1, 2])).max(1)
            + self.random.pick(&[0, 0, 0, 0, 2]);
        let count = self.random.below(4);
        let event = |seq| format!("data: {0}-{seq}\nid: e{0}-{seq}\n\n", run.epoch);
        let bytes = Bytes::from((first..first + count).map(event).collect::<String>());
        let append = Append {
            key: run.open.key.clone(),
            starts: self.random.one_in(3),
            epoch: run.epoch,
            first,
            events: Frame { count, bytes },
            inner_id: None,
            inner_retry: None,
            metadata: Vec::new(),
        };
        let answer = self.store.append(vec![append.clone()]).await.unwrap().remove(0);
        let differs = compare(&append, &answer, &self.model.append(&append, LIFETIME));
        let name = match answer {
            Appended::Stored => {
                let acknowledged = &mut self.runs[index].acknowledged;
                *acknowledged = (*acknowledged).max(first + count - 1);
                "append"
            }
            Appended::Fenced(Fence::Newer) => "append newer",
            Appended::Fenced(_) => "append ended",
            Appended::Gone => "append gone",
            Appended::Refused => "append refused",
            other => panic!("another outcome: {other:?}"),
        };
        (name, differs)
    }

    /// An expected deadline: none, the right one, or one that has moved.
    fn deadline(&mut self, key: &StreamKey) -> Option<u64> {
        let deadline = self.model.held(key).map_or(7, |stream| stream.deadline);
        self.random.pick(&[None, None, Some(deadline), Some(deadline.wrapping_sub(1))])
    }

    async fn close(&mut self) -> Step {
        let Some(index) = self.run() else { return ("nothing", None) };
        let Run { open, epoch, acknowledged } = self.runs[index].clone();
        let close = Close {
            if_deadline: self.deadline(&open.key),
            key: open.key,
            epoch: self.random.pick(&[None, Some(epoch), Some(epoch)]),
            ending: Ending::supplied(self.random.pick(&[StreamState::Failed, StreamState::Orphaned]), reason::ERROR),
            last: self.random.pick(&[None, Some(acknowledged), Some(acknowledged + 2)]),
            hook: self.random.pick(&[None, Some(LEASE)]),
        };
        let answer = self.store.close(close.clone()).await.unwrap();
        let differs = compare(&close, &answer, &self.model.close(&close, WINDOW));
        let name = match answer {
            Closed::Now { .. } => "close",
            Closed::Before(_) => "close before",
            Closed::Newer => "close newer",
            Closed::Moved => "close moved",
            Closed::Missing => "close missing",
            other => panic!("another outcome: {other:?}"),
        };
        (name, differs)
    }

    async fn interrupt(&mut self) -> Step {
        let Some(index) = self.run() else { return ("nothing", None) };
        let Run { open, epoch, acknowledged } = self.runs[index].clone();
        let interrupt = Interrupt {
            if_deadline: self.deadline(&open.key),
            key: open.key,
            epoch,
            last: self.random.pick(&[None, Some(acknowledged), Some(acknowledged + 3)]),
        };
        let answer = self.store.interrupt(interrupt.clone()).await.unwrap();
        let differs = compare(&interrupt, &answer, &self.model.interrupt(&interrupt));
        let name = match answer {
            Interrupted::Done => "interrupt",
            Interrupted::Fenced(_) => "interrupt fenced",
            Interrupted::Moved => "interrupt moved",
            Interrupted::Missing => "interrupt missing",
            other => panic!("another outcome: {other:?}"),
        };
        (name, differs)
    }

    async fn withdraw(&mut self) -> Step {
        let Some(index) = self.run() else { return ("nothing", None) };
        let Run { open, .. } = &self.runs[index];
        self.store.withdraw(open.key.clone(), open.token).await.unwrap();
        self.model.withdraw(&open.key, open.token);
        ("withdraw", None)
    }

    async fn beat(&mut self) -> Step {
        let runs = self.runs.iter().rev().take(5).map(|run| (run.open.key.clone(), run.epoch)).collect();
        let beat =
            Beat { node: NodeId::new("one"), streams: runs, stale: RETENTION.stale, lifetime: RETENTION.lifetime };
        let answer = self.store.beat(beat.clone()).await.unwrap();
        let expected = (self.model.now, self.model.beat(&beat, LIFETIME));
        let name = if answer.lost.is_empty() { "beat" } else { "beat lost" };
        (name, compare(&beat, &(answer.now, answer.lost), &expected))
    }

    async fn due(&mut self) -> Step {
        // Claim nothing, or up to the store's clock, or up to the asker's own clock, which is behind or ahead.
        let now = self.model.now;
        let claim = self.random.pick(&[None, Some(now), Some(u64::MAX), Some(now - 40), Some(now - 400)]);
        let due = self.store.due(100, LEASE, claim).await.unwrap();
        let brief = |due: &Due| (due.info.key.clone(), due.reason, due.info.deadline);
        let mut answer: Vec<_> = due.iter().map(brief).collect();
        answer.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let expected = self.model.due(70, claim);
        let name = match answer.first() {
            None => "due nothing",
            Some((_, DueReason::Stale, _)) => "due stale",
            Some((_, DueReason::Lifetime, _)) => "due lifetime",
            Some((_, DueReason::Hook, _)) => "due hook",
            Some((_, other, _)) => panic!("another reason: {other:?}"),
        };
        (name, compare(&("due", claim), &answer, &expected))
    }

    async fn reopen(&mut self) -> Step {
        let Some(index) = self.run() else { return ("nothing", None) };
        let Run { open, epoch, acknowledged } = self.runs[index].clone();
        let open = Open { started: open.started || self.random.one_in(2), ..open };
        let reopen = Reopen {
            open,
            epoch,
            acknowledged,
            inner_id: None,
            inner_retry: None,
            since: Duration::from_millis(self.random.pick(&[0, 300])),
        };
        let answer = self.store.reopen(reopen.clone()).await.unwrap();
        let differs = compare(&reopen, &answer, &self.model.reopen(&reopen));
        let name = match answer {
            Reopened::Registered => "reopen",
            Reopened::Fenced(_) => "reopen fenced",
            other => panic!("another outcome: {other:?}"),
        };
        (name, differs)
    }

    /// Reads every stream from the store, and compares it with the model's.
    pub(crate) async fn compare(&mut self) -> Result<(), String> {
        for key in &self.keys {
            let read = Read { key: key.clone(), from: ReadFrom::Start, max_events: usize::MAX, max_bytes: usize::MAX };
            let info = self.store.info(key.clone()).await.unwrap();
            let page = self.store.read(read).await.unwrap();
            let known = info.map(|info| {
                let node = info.node.unwrap();
                let named = (info.kind.into_owned(), info.origin, info.fingerprint);
                (named, (info.state, info.epoch, info.started, info.deadline), node, info.top, info.ended)
            });
            let held = self.model.held(key).map(|held| {
                let node = held.node.clone();
                let named = (held.kind.clone(), held.origin, held.fingerprint.clone());
                (named, (held.state, held.epoch, held.started, held.deadline), node, held.top(), held.ended.clone())
            });
            compare(key, &known, &held).map_or(Ok(()), Err)?;
            let single = |page: resilient_sse::store::Page| {
                page.records.into_iter().flat_map(|record| single_events(&Sse, record))
            };
            let records = page.map(|page| single(page).map(|record| (record.id, record.kind)).collect());
            let log = self.model.held(key).map(|held| {
                let end = held.ended.iter().map(|ended| (ended.id, RecordKind::End(Box::new(ended.clone()))));
                held.log.clone().into_iter().chain(end).collect::<Vec<_>>()
            });
            compare(key, &records, &log).map_or(Ok(()), Err)?;
        }
        self.compare_pointers().await
    }

    /// Ends all remaining streams, waits until they have expired, and sweeps once.
    pub(crate) async fn end_all(&mut self) {
        for key in self.keys.clone() {
            let ending = Ending::supplied(StreamState::Expired, reason::LIFETIME);
            let close = Close { key, epoch: None, ending, last: None, if_deadline: None, hook: Some(LEASE) };
            self.store.close(close).await.unwrap();
        }
        tokio::time::advance(RETENTION.recovery_window).await;
        // Pointers that were moved by hand live for the TTL that they were given.
        tokio::time::advance(RETENTION.lifetime + RETENTION.stale).await;
        assert_eq!(self.store.due(100, LEASE, Some(self.model.now)).await.unwrap(), []);
    }
}
