//! Checks the guarantees against what clients saw over all their connections, the store's contents, and the counters.

use std::collections::BTreeMap;

use resilient_sse::{
    Ended, EventId, Health, RecordKind, StreamId, StreamKey, Voice,
    store::Page,
    test_util::Seen,
    wire::{Framing as _, Sse},
};
use serde_json::Value;

/// What all clients of a stream saw of it.
#[derive(Debug, Default)]
pub struct Facts {
    events: BTreeMap<EventId, String>,
    /// For each epoch, the run of the handler that made its events.
    runs: BTreeMap<u64, String>,
    /// The terminal events that clients saw. There are several if the stream expired and was opened again.
    terminal: BTreeMap<EventId, String>,
    /// For each terminal event that a client got: the client's last id before it, and whether a gap preceded it.
    ends: Vec<(Option<EventId>, bool)>,
    pub gaps: u64,
}

impl Facts {
    /// Checks that an id stands for the same event with all clients, and that the event belongs to this stream and run.
    fn learn(&mut self, key: &StreamKey, id: EventId, data: &str) {
        let known = self.events.entry(id).or_insert_with(|| data.to_owned());
        assert_eq!(known, data, "two events with the id {id}");
        let Some((tag, n)) = data.rsplit_once(':') else { return };
        let Some((stream, run)) = tag.rsplit_once('#') else { return };
        let own = format!("{}/{}", key.owner.name().unwrap_or("-"), key.id);
        assert_eq!(stream, own, "an event of another stream: {id} {data}");
        if let Ok(n) = n.parse::<u64>() {
            let from = self.runs.entry(id.epoch).or_insert_with(|| run.to_owned());
            assert_eq!(from, run, "two runs of the handler in one epoch: {id} {data}");
            // A handler that continues after its own last id begins with a number above 1.
            assert!(n >= id.seq, "{id} {data}");
        }
    }

    /// Checks that the log is dense within its runs, in order, and agrees with what clients saw.
    pub fn check_log(&mut self, key: &StreamKey, page: &Page, lost: bool) {
        let mut at = EventId::default();
        for (index, record) in page.records.iter().enumerate() {
            assert!(record.id > at, "{} after {at}", record.id);
            match &record.kind {
                RecordKind::Run { .. } => assert_eq!(record.id.seq, 0),
                RecordKind::Events(event) => {
                    let dense = record.id == EventId::new(at.epoch, at.seq + 1);
                    assert!(dense || index == 0 || lost, "{} after {at}", record.id);
                    self.learn(key, record.id, &Sse.view(&event.bytes).data);
                }
                RecordKind::End(ended) => {
                    assert_eq!(index + 1, page.records.len(), "a record after the end");
                    assert_eq!(record.id, EventId::terminal(page.epoch));
                    assert!(ended.last >= at, "the end names {}, but the log has {at}", ended.last);
                    self.check_end(ended);
                }
            }
            at = record.id;
        }
        let ended = matches!(page.records.last().map(|record| &record.kind), Some(RecordKind::End(_)));
        assert_eq!(ended, page.state.is_terminal(), "{}", page.state);
    }

    /// Checks that clients saw the stored end, and that no client lacks an event without a gap.
    fn check_end(&self, ended: &Ended) {
        if let Some((id, seen)) = self.terminal.last_key_value() {
            assert_eq!(*id, ended.id, "clients saw another end than the stored one");
            if let Some(block) = &ended.ending.event {
                assert_eq!(*seen, as_text(&Sse.view(block).name.unwrap_or("message".into()), &Sse.view(block).data));
            }
        }
        for (at, gap) in &self.ends {
            let lacks_events = at.is_some_and(|at| at.epoch == ended.last.epoch && at < ended.last);
            assert!(!lacks_events || *gap, "a client at {at:?} got the end after {} without a gap", ended.last);
        }
    }
}

fn as_text(name: &str, data: &str) -> String {
    format!("{name} {data}")
}

/// A notice of the library in the route's voice: `connected`, `gap` or `restart`.
#[derive(Debug)]
struct Notice {
    name: String,
    data: Value,
}

impl Notice {
    fn of(voice: Voice, seen: &Seen) -> Option<Self> {
        let notices = ["connected", "gap", "restart"];
        let data = serde_json::from_str(&seen.data).unwrap_or(Value::Null);
        let name = match voice {
            Voice::Named => seen.name.clone(),
            _ => data["type"].as_str().unwrap_or_default().to_owned(),
        };
        notices.contains(&name.as_str()).then_some(Self { name, data })
    }
}

/// The meaning of a client's cursor for the stream when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// The client has no cursor, or asks only for new events.
    None,
    /// The last id that it saw.
    Own,
    /// An unreadable cursor, or one of another stream. A gap must come first.
    Foreign,
}

/// One client of one stream, over all its connections.
#[derive(Debug)]
pub struct Witness {
    pub key: StreamKey,
    pub voice: Voice,
    /// Whether event ids contain the stream's id.
    pub prefixed: bool,
    /// Whether the route's streams never finish, so that bodies may end cleanly at any time.
    pub endless: bool,
    at: Option<EventId>,
    cursor: Cursor,
    greeted: bool,
    gap: Option<Value>,
    restart: Option<u64>,
    pub ended: Option<EventId>,
    pub gaps: u64,
    pub restarts: u64,
    /// The data of every event, terminal ones included.
    pub data: Vec<String>,
    /// The names of every event and notice except `connected`.
    pub names: Vec<String>,
}

impl Witness {
    pub fn new(key: StreamKey, voice: Voice, prefixed: bool) -> Self {
        Self {
            key,
            voice,
            prefixed,
            endless: false,
            at: None,
            cursor: Cursor::None,
            greeted: false,
            gap: None,
            restart: None,
            ended: None,
            gaps: 0,
            restarts: 0,
            data: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Begins a new connection.
    pub fn connects(&mut self, cursor: Cursor) {
        if cursor != Cursor::Own {
            self.at = None;
            self.ended = None;
        }
        self.cursor = cursor;
        (self.greeted, self.gap, self.restart) = (false, None, None);
    }

    pub fn at(&self) -> Option<EventId> {
        self.at
    }

    /// Checks the next event.
    pub fn check(&mut self, seen: &Seen, facts: &mut Facts) {
        assert!(self.ended.is_none(), "an event after the end: {seen:?}");
        match Notice::of(self.voice, seen) {
            Some(notice) => self.notice(&notice, facts),
            None => self.event(seen, facts),
        }
        if seen.name != "connected" {
            self.names.push(seen.name.clone());
        }
    }

    fn notice(&mut self, notice: &Notice, facts: &mut Facts) {
        match notice.name.as_str() {
            "connected" => {
                assert!(!std::mem::replace(&mut self.greeted, true), "two `connected` notices");
                assert_eq!(notice.data["streamId"], self.key.id.as_str());
            }
            "gap" => {
                assert!(self.gap.is_none() && self.restart.is_none(), "at most one gap, and before any restart");
                let after = notice.data["after"].as_str().map(|after| self.read(after));
                match self.cursor {
                    Cursor::None | Cursor::Own => {
                        assert_eq!(after, self.at, "a gap begins after the client's last event");
                    }
                    Cursor::Foreign => {}
                }
                self.gap = Some(notice.data.clone());
                self.gaps += 1;
                facts.gaps += 1;
            }
            _ => {
                assert!(self.restart.is_none(), "two restarts in a row");
                self.restart = Some(notice.data["epoch"].as_str().unwrap().parse().unwrap());
                self.restarts += 1;
            }
        }
    }

    fn event(&mut self, seen: &Seen, facts: &mut Facts) {
        let id = self.read(&seen.id);
        let (gap, restart) = (self.gap.take(), self.restart.take());
        let run = if id.seq == 0 { id.epoch - 1 } else { id.epoch };
        if let Some(gap) = &gap {
            assert_eq!(
                self.read(gap["resumesAt"].as_str().unwrap()),
                id,
                "the event after a gap is the one that the gap names"
            );
        }
        if let Some(restart) = restart {
            assert_eq!(restart, run, "a restart names the run that follows");
        }
        match (self.cursor, self.at) {
            (Cursor::Foreign, None) => assert!(gap.is_some(), "{id} after a foreign cursor, without a gap"),
            (_, None) => {}
            (_, Some(at)) => {
                assert!(id > at, "{id} after {at}");
                let may_cross = restart.is_some() || self.voice == Voice::Silent;
                assert!(at.epoch == run || may_cross, "from {at} to {id}: a new run without a restart");
                assert!(at.epoch != run || restart.is_none(), "from {at} to {id}: a restart within a run");
                self.check_dense(at, id, gap.as_ref());
            }
        }
        if id.seq == 0 {
            facts.ends.push((self.at, gap.is_some()));
            let end = as_text(&seen.name, &seen.data);
            assert_eq!(*facts.terminal.entry(id).or_insert_with(|| end.clone()), end, "all clients see the same end");
            self.ended = Some(id);
        } else {
            facts.learn(&self.key, id, &seen.data);
        }
        (self.at, self.cursor) = (Some(id), Cursor::Own);
        self.data.push(seen.data.clone());
    }

    /// Asserts guarantee G12 for a body that ended cleanly: the terminal event came before.
    pub fn body_ends_cleanly(&self) {
        // In the other voices, an ending that the library supplies may have no event.
        let has_endings = matches!(self.voice, Voice::Named | Voice::Json);
        let finished = self.ended.is_some() || self.endless || !has_endings;
        assert!(finished, "an unfinished stream looks finished: {:?}", self.names);
    }

    /// Checks that an event is the next one, or that the client was told how many are missing.
    fn check_dense(&self, at: EventId, id: EventId, gap: Option<&Value>) {
        if id.seq == 0 {
            return;
        }
        let before = if at.epoch == id.epoch { at.seq } else { 0 };
        let missing = id.seq - before - 1;
        match gap {
            None => assert_eq!(missing, 0, "{id} after {at} without a gap"),
            Some(gap) if at.epoch == id.epoch => assert_eq!(gap["missed"], missing, "{id} after {at}"),
            Some(_) => {}
        }
    }

    /// Reads an id in its wire form.
    fn read(&self, id: &str) -> EventId {
        let bare = match id.rsplit_once('.') {
            Some((stream, id)) => {
                assert!(self.prefixed, "{id} contains a stream id that the library did not generate");
                assert_eq!(stream, self.key.id.as_str(), "an id of another stream");
                id
            }
            None => {
                assert!(!self.prefixed, "{id} lacks the stream id that the library generated");
                id
            }
        };
        bare.parse().unwrap_or_else(|_| panic!("{id:?} is no event id"))
    }

    /// Returns the cursor with which the client reconnects.
    pub fn cursor(&self) -> Option<String> {
        let at = self.at?;
        Some(if self.prefixed { format!("{}.{at}", self.key.id) } else { at.to_string() })
    }

    /// Sets the stream id that the library generated.
    pub fn set_stream_id(&mut self, id: &str) {
        self.key.id = StreamId::new(id).unwrap();
    }
}

/// Checks the raw bytes of a body: every block is whole, has data, and has its id as the last line.
pub fn check_bytes(bytes: &[u8], ended: bool) {
    let text = String::from_utf8_lossy(bytes);
    let mut blocks: Vec<_> = text.split("\n\n").collect();
    let rest = blocks.pop().unwrap_or_default();
    assert!(!ended || !rest.lines().any(|line| line.starts_with("data")), "cut off: {rest:?}");
    for block in blocks {
        let lines: Vec<_> = block.lines().filter(|line| !line.starts_with(':')).collect();
        assert!(lines.iter().any(|line| line.starts_with("data")), "a block without data: {block:?}");
        let ids: Vec<_> = lines.iter().enumerate().filter(|(_, line)| line.starts_with("id:")).collect();
        assert!(ids.len() <= 1, "{block:?}");
        assert!(ids.iter().all(|(index, _)| index + 1 == lines.len()), "the id is the last line: {block:?}");
        let retry = lines.iter().position(|line| line.starts_with("retry:"));
        assert!(retry.is_none_or(|index| index == 0), "{block:?}");
    }
}

/// Checks the counters of an idle node.
pub fn check_health(health: &Health) {
    assert_eq!((health.active, health.detached, health.followers), (0, 0, 0), "{health:?}");
    assert!(health.ended.values().sum::<u64>() >= health.orphaned, "{health:?}");
    assert_eq!(health.bypassed, health.bypassed_by.values().sum::<u64>(), "{health:?}");
    assert_eq!(health.breaker, "closed");
}
