//! Reads a stream's stored state, end and log.

use std::borrow::Cow;

use redis::Value;

use super::{
    error::RedisStoreError,
    value::{self, Fields, ScriptReply},
};
use crate::{
    model::{
        id::{EventId, NodeId, StreamKey},
        kept::KeptHeaders,
        metadata::Metadata,
        stream::{Ended, Ending, Frame, Origin, Record, RecordKind, StreamInfo, StreamState},
        turn::Turn,
        voice::Voice,
    },
    store::Fence,
};

/// A stream's hash.
pub(super) struct Held(Fields);

/// The state of a stream, as its hash has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Only the stream's epoch is left, which is kept for a while.
    Gone,
    /// Only a tombstone is left.
    Deleted,
    Is(StreamState),
}

impl Held {
    pub(super) fn new(fields: Fields) -> Self {
        Self(fields)
    }

    pub(super) fn standing(&self) -> Standing {
        match self.text("state") {
            None | Some("gone") => Standing::Gone,
            Some("deleted") => Standing::Deleted,
            Some(state) => state_of(state).map_or(Standing::Gone, Standing::Is),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.0.get(name)?).ok()
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        self.0.get(name).and_then(|bytes| value::number_of(bytes)).unwrap_or(0)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.number("epoch")
    }

    /// The last event that was lost with a store that forgot it.
    pub(super) fn lost(&self) -> Option<EventId> {
        EventId::from_pair(self.text("lost")?)
    }

    /// The newest known event of the newest run: in the log, or lost with a store that forgot it.
    pub(super) fn top(&self, log: Option<EventId>) -> EventId {
        let log = log.unwrap_or(EventId::new(self.epoch(), 0));
        self.lost().filter(|lost| lost.epoch == log.epoch).map_or(log, |lost| lost.max(log))
    }

    /// Whether the producer has begun to answer. Either the hash says so, or the log has an event of its run, since a plain
    /// `XADD` does not write the hash.
    pub(super) fn has_started(&self, log: Option<EventId>) -> bool {
        self.flag("started") || log.is_some_and(|top| top.seq > 0)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("1")
    }

    pub(super) fn node(&self) -> Option<NodeId> {
        self.text("node").filter(|node| !node.is_empty()).map(NodeId::new)
    }

    /// How long after each beat the stream is overdue.
    pub(super) fn overdue_after(&self) -> u64 {
        self.number("stale").min(self.number("life"))
    }

    /// When the producer was last heard of, by the deadline that stands in the index.
    pub(super) fn last_heartbeat(&self, deadline: u64) -> u64 {
        if self.node().is_none() && self.standing() == Standing::Is(StreamState::Active) {
            // No node beats it; each event sets when it was last heard of.
            return self.number("heard").max(self.number("startedAt"));
        }
        if deadline == 0 || deadline == self.number("leased") {
            return self.number("heard").max(self.number("startedAt"));
        }
        deadline.saturating_sub(self.overdue_after()).max(self.number("startedAt"))
    }

    pub(super) fn origin(&self) -> Origin {
        origin(self.text("origin"))
    }

    pub(super) fn voice(&self) -> Voice {
        Voice::named(self.text("voice"))
    }

    pub(super) fn headers(&self) -> KeptHeaders {
        self.text("headers").map(KeptHeaders::parse).unwrap_or_default()
    }

    /// The reconnect delay that the inner service set last, in milliseconds.
    pub(super) fn inner_retry(&self) -> Option<u64> {
        self.text("retry").and_then(|delay| delay.parse().ok())
    }

    fn metadata(&self) -> Metadata {
        let pair = |(name, value): (&String, &Vec<u8>)| {
            let value = String::from_utf8(value.clone()).ok()?;
            Some((name.strip_prefix("m:")?.to_owned(), value))
        };
        let mut metadata: Metadata = self.0.iter().filter_map(pair).collect();
        metadata.sort();
        metadata
    }

    /// The state of a stream that is held. `deadline`: its score in the index, or 0.
    pub(super) fn info(
        &self,
        key: &StreamKey,
        state: StreamState,
        deadline: u64,
        log: Option<EventId>,
        ended: Option<Ended>,
    ) -> StreamInfo {
        let top = self.top(log);
        StreamInfo {
            key: key.clone(),
            kind: Cow::Owned(self.text("kind").unwrap_or_default().to_owned()),
            origin: self.origin(),
            voice: self.voice(),
            turn: self.text("turn").and_then(Turn::parse),
            headers: self.headers(),
            fingerprint: self.text("fp").and_then(|print| print.strip_prefix('=')).map(str::to_owned),
            state,
            epoch: self.epoch(),
            previous: self.text("previous").and_then(EventId::from_pair),
            node: self.node(),
            started: self.has_started(log),
            reruns: self.flag("reruns"),
            started_at: self.number("startedAt"),
            last_heartbeat: self.last_heartbeat(deadline),
            deadline,
            metadata: self.metadata(),
            top: ended.as_ref().map_or(top, |ended| ended.id),
            inner_id: self.text("inner").map(str::to_owned),
            inner_retry: self.inner_retry(),
            ended,
        }
    }
}

/// Reads an origin. A stream without one counts as named by a request.
pub(super) fn origin(text: Option<&str>) -> Origin {
    let origins = [Origin::Named, Origin::Generated, Origin::Published];
    origins.into_iter().find(|origin| text == Some(origin.as_str())).unwrap_or(Origin::Named)
}

fn state_of(text: &str) -> Option<StreamState> {
    use StreamState::{Active, Cancelled, Completed, Expired, Failed, Interrupted, Orphaned};
    [Active, Interrupted, Completed, Failed, Cancelled, Orphaned, Expired]
        .into_iter()
        .find(|state| state.as_str() == text)
}

/// The fields of a completion that say how a stream ended.
pub(super) const ENDED: [&str; 7] = ["v", "state", "reason", "event", "id", "last", "completedAt"];

/// The fields of a hash, from a reply to `HMGET`. A key of another type has none.
pub(super) fn fields(names: &[&str], reply: Value) -> Fields {
    let values = value::array(reply, "HMGET").unwrap_or_default();
    let field = |(name, value): (&&str, Value)| Some(((*name).to_owned(), value::bytes(value)?));
    names.iter().zip(values).filter_map(field).collect()
}

/// Reads how a stream ended. `None`: it has not, or this version cannot read it.
pub(super) fn ended(mut fields: Fields) -> Option<Ended> {
    let text = |fields: &mut Fields, name| fields.remove(name).and_then(|bytes| String::from_utf8(bytes).ok());
    if fields.get("v").map(Vec::as_slice) != Some(b"1") {
        return None;
    }
    let state = state_of(&text(&mut fields, "state")?)?;
    let reason = text(&mut fields, "reason").map(Cow::Owned);
    let event = fields.remove("event").and_then(value::block);
    Some(Ended {
        ending: Ending { state, reason, event },
        id: EventId::from_pair(&text(&mut fields, "id")?)?,
        last: EventId::from_pair(&text(&mut fields, "last")?)?,
        at: value::number_of(fields.get("completedAt")?)?,
    })
}

/// An entry of a log. It is stored under the id of its last event.
pub(super) struct Entry {
    pub(super) id: EventId,
    at: u64,
    pub(super) holds: Holds,
}

pub(super) enum Holds {
    Events(Frame),
    /// The marker of a run. It may stand for several runs, from `since` on, of which only the last one may have events.
    Run {
        previous: Option<EventId>,
        since: Option<EventId>,
    },
    Seal,
    /// An entry that this version cannot read. Readers get a gap, since its ids are missing.
    Unreadable,
}

impl Entry {
    fn read(entry: Value) -> Option<Self> {
        let mut parts = value::array(entry, "XRANGE").ok()?.into_iter();
        let id = EventId::from_pair(&value::text(parts.next()?)?)?;
        let read = parts.next().and_then(|fields| Self::read_fields(id, fields));
        Some(read.unwrap_or(Self { id, at: 0, holds: Holds::Unreadable }))
    }

    fn read_fields(id: EventId, fields: Value) -> Option<Self> {
        let mut fields = value::array(fields, "XRANGE").ok()?.into_iter();
        let mut entry = Self { id, at: 0, holds: Holds::Unreadable };
        let mut count = 1;
        while let (Some(name), Some(field)) = (fields.next(), fields.next()) {
            match (value::bytes(name)?.as_slice(), &mut entry.holds) {
                (b"t", _) => {
                    let since: i64 = value::text(field)?.parse().ok()?;
                    entry.at = id.epoch.checked_add_signed(since)?;
                }
                (b"k", _) => count = value::number(&field).filter(|count| (1..=id.seq).contains(count))?,
                // The number of events (`k`) precedes the events. An entry with more events than bytes is damaged, and only a
                // seal has the seq `u64::MAX`.
                (b"e", holds) => {
                    let bytes = value::frame(value::bytes(field)?).filter(|_| id.seq < u64::MAX)?;
                    *holds = Holds::Events(Frame {
                        count: Some(count).filter(|count| *count <= bytes.len() as u64)?,
                        bytes,
                    });
                }
                (b"r", holds) => {
                    *holds = Holds::Run { previous: EventId::from_pair(&value::text(field)?), since: None };
                }
                (b"c", Holds::Run { since, .. }) => *since = EventId::from_pair(&value::text(field)?),
                (b"s", holds) => *holds = Holds::Seal,
                _ => {}
            }
        }
        Some(entry)
    }

    /// When it was written, by the store's clock.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The record for readers. `None`: they get nothing of it.
    pub(super) fn into_record(self) -> Option<Record> {
        let kind = match self.holds {
            Holds::Events(frame) => RecordKind::Events(frame),
            Holds::Run { previous, .. } => RecordKind::Run { previous },
            Holds::Seal | Holds::Unreadable => return None,
        };
        Some(Record { id: self.id, at: self.at, kind })
    }
}

/// A reply to `XRANGE` or `XREVRANGE`.
pub(super) fn entries(reply: Value) -> Result<Vec<Entry>, RedisStoreError> {
    Ok(value::array(reply, "XRANGE")?.into_iter().filter_map(Entry::read).collect())
}

/// The end that a script tells of. `None`: one that this version cannot read.
pub(super) fn end(reply: &mut ScriptReply) -> Result<Option<Ended>, RedisStoreError> {
    Ok(ended(reply.fields()?))
}

/// The fence that a script reports. An end that cannot be read, perhaps of another version, fences like a newer run.
pub(super) fn fence(reply: &mut ScriptReply) -> Result<Fence, RedisStoreError> {
    Ok(ended(reply.fields()?).map_or(Fence::Newer, Fence::Ended))
}
