//! The JSON answer of the recovery service.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    page::{self, Events},
    query::RecoverQuery,
};
use crate::{
    model::{
        error::StoreError,
        id::{Cursor, EventId, StreamKey},
        stream::{Ended, Origin, Record, RecordKind, StreamInfo, StreamState},
    },
    node::Node,
    wire::{
        Framing,
        fields::{EventFields, terminal},
    },
};

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
    terminal_event_data: Box<RawValue>,
    completed_at: u64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    page: Option<PageAnswer>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunningAnswer {
    status: StreamState,
    stream_id: String,
    kind: String,
    started_at: u64,
    last_heartbeat: u64,
    #[serde(flatten)]
    page: PageAnswer,
}

#[derive(Debug, Serialize)]
pub(super) struct PageAnswer {
    events: Vec<EventAnswer>,
    /// How many events are lost before and between `events`; null if the number is not known.
    missing: Option<u64>,
    /// The value of `after` for the next page; null if this page is the last one.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct EventAnswer {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    data: String,
    json: Option<Box<RawValue>>,
    ts: u64,
}

impl Answer {
    /// Reads the answer from the store. Returns `None` if there is no such stream.
    pub(super) async fn ask(node: &Node, key: StreamKey, query: &RecoverQuery) -> Result<Option<Self>, StoreError> {
        let Some(info) = node.store.info(key).await? else { return Ok(None) };
        let page = if info.ended.is_none() || query.is_paged {
            let Some(events) = page::read(node, &info.key, query).await? else { return Ok(None) };
            Some(PageAnswer::new(&info, &events, &*node.framing))
        } else {
            None
        };
        Ok(match (&info.ended, page) {
            (Some(ended), page) => Some(Self::Ended(EndedAnswer::new(&info, ended, page, &*node.framing))),
            (None, Some(page)) => Some(Self::Running(RunningAnswer::new(&info, page))),
            (None, None) => None,
        })
    }
}

impl EndedAnswer {
    fn new(info: &StreamInfo, ended: &Ended, page: Option<PageAnswer>, framing: &dyn Framing) -> Self {
        let (kind, data) = terminal(framing, &ended.ending);
        Self {
            status: ended.ending.state,
            reason: ended.ending.reason.as_deref().map(str::to_owned),
            stream_id: info.key.id.to_string(),
            terminal_event_type: kind,
            terminal_event_data: data,
            completed_at: ended.at,
            page,
        }
    }
}

impl RunningAnswer {
    fn new(info: &StreamInfo, page: PageAnswer) -> Self {
        Self {
            status: info.state,
            stream_id: info.key.id.to_string(),
            kind: info.kind.to_string(),
            started_at: info.started_at,
            last_heartbeat: info.last_heartbeat,
            page,
        }
    }
}

impl PageAnswer {
    fn new(info: &StreamInfo, page: &Events, framing: &dyn Framing) -> Self {
        // The ids have the form of the stream's own responses, so that a client can use them as cursors there.
        let named = (info.origin == Origin::Generated).then(|| info.key.id.clone());
        let wire = |at: EventId| Cursor { stream: named.clone(), at }.to_string();
        let events = page.records.iter().filter_map(|record| EventAnswer::new(record, wire, framing)).collect();
        Self { events, missing: page.missing, next: page.next.map(wire) }
    }
}

impl EventAnswer {
    fn new(record: &Record, wire: impl Fn(EventId) -> String, framing: &dyn Framing) -> Option<Self> {
        let RecordKind::Events(event) = &record.kind else { return None };
        let fields = EventFields::of(framing, &event.bytes);
        let json = fields.json().map(ToOwned::to_owned);
        Some(Self { id: wire(record.id), kind: fields.kind, data: fields.data, json, ts: record.at })
    }
}
