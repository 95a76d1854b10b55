//! What recovery says of a stream.

use http::request::Parts;
use serde::Serialize;
use serde_json::Value;

use crate::{
    error::StoreError,
    hub::Core,
    id::{Cursor, StreamId, StreamKey},
    request::parameter,
    store::{From, Page, Read},
    stream::{Ended, Record, RecordKind, StreamInfo, StreamState},
    wire::{
        Framing,
        fields::{EventFields, terminal},
    },
};

/// Events in an answer, unless the request asks for fewer or more.
const DEFAULT_LIMIT: usize = 1000;
/// Events in an answer at most.
const MAX_LIMIT: usize = 10_000;
/// Bytes of events in an answer at most.
const MAX_BYTES: usize = 4 << 20;

/// What a recovery request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecoverQuery {
    from: From,
    limit: usize,
}

impl RecoverQuery {
    /// Reads `?after=<id>&limit=<n>` for the stream `id`; the error names the parameter and its rule.
    pub(crate) fn parse(request: &Parts, id: &StreamId) -> Result<Self, &'static str> {
        let from = match parameter(request, "after") {
            None => From::Newest,
            Some(text) => match Cursor::parse(&text).ok_or("`after` is an event id, as in e1700000000000-7")? {
                Cursor { stream: Some(other), .. } if other != *id => From::Start,
                Cursor { at, .. } => From::After(at),
            },
        };
        let limit = match parameter(request, "limit") {
            None => DEFAULT_LIMIT,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=MAX_LIMIT) => limit,
                _ => return Err("`limit` is a number from 1 to 10000"),
            },
        };
        Ok(Self { from, limit })
    }

    fn read(self, key: StreamKey) -> Read {
        Read { key, from: self.from, max_events: self.limit, max_bytes: MAX_BYTES }
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    Ended(EndedAnswer),
    Running(RunningAnswer),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndedAnswer {
    status: StreamState,
    reason: Option<String>,
    stream_id: String,
    terminal_event_type: String,
    terminal_event_data: Value,
    completed_at: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunningAnswer {
    status: StreamState,
    stream_id: String,
    kind: String,
    started_at: u64,
    last_heartbeat: u64,
    events: Vec<EventAnswer>,
    /// What to ask for next as `after`; null where everything held was given.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct EventAnswer {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    data: String,
    json: Option<Value>,
    ts: u64,
}

impl Answer {
    /// Asks the store; `None` if there is no such stream.
    pub(super) async fn ask(core: &Core, key: StreamKey, query: RecoverQuery) -> Result<Option<Self>, StoreError> {
        let Some(info) = core.store.info(key.clone()).await? else { return Ok(None) };
        if let Some(ended) = &info.ended {
            return Ok(Some(Self::Ended(EndedAnswer::new(&info, ended, &*core.framing))));
        }
        let Some(mut page) = core.store.read(query.read(key.clone())).await? else { return Ok(None) };
        if !page.known {
            // A cursor that says nothing here hides nothing either: all that is held, as for one who follows.
            let query = RecoverQuery { from: From::Start, ..query };
            let Some(whole) = core.store.read(query.read(key)).await? else { return Ok(None) };
            page = whole;
        }
        Ok(Some(Self::Running(RunningAnswer::new(&info, &page, &*core.framing))))
    }
}

impl EndedAnswer {
    fn new(info: &StreamInfo, ended: &Ended, framing: &dyn Framing) -> Self {
        let (kind, data) = terminal(framing, &ended.ending);
        Self {
            status: ended.ending.state,
            reason: ended.ending.reason.as_deref().map(str::to_owned),
            stream_id: info.key.id.to_string(),
            terminal_event_type: kind,
            terminal_event_data: data,
            completed_at: ended.at,
        }
    }
}

impl RunningAnswer {
    fn new(info: &StreamInfo, page: &Page, framing: &dyn Framing) -> Self {
        let events: Vec<_> = page.records.iter().filter_map(|record| EventAnswer::new(record, framing)).collect();
        Self {
            status: info.state,
            stream_id: info.key.id.to_string(),
            kind: info.kind.to_string(),
            started_at: info.started_at,
            last_heartbeat: info.last_heartbeat,
            next: if page.more { page.records.last().map(|record| record.id.to_string()) } else { None },
            events,
        }
    }
}

impl EventAnswer {
    fn new(record: &Record, framing: &dyn Framing) -> Option<Self> {
        let RecordKind::Event(block) = &record.kind else { return None };
        let EventFields { kind, data, json } = EventFields::of(framing, block);
        Some(Self { id: record.id.to_string(), kind, data, json, ts: record.at })
    }
}
