//! How the library itself speaks on a route.

use bytes::BytesMut;
use serde_json::{Value, json};

use crate::{
    event::Event,
    id::{CursorWriter, EventId, StreamId},
    protocol::replay::Gap,
    stream::{Ended, Ending, StreamState},
    wire::Framing,
};

/// How the library tells a route's clients what is not an event of the inner service.
///
/// Strict clients fail on events that they do not know, so the voice must be one that the route's
/// clients understand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Voice {
    /// Named events with JSON data: `connected`, `gap`, `restart`, and endings by their state.
    #[default]
    Named,
    /// Unnamed events: `data: {"type":"gap",…}`.
    Json,
    /// No `connected`; all else as `data: {"error":{"message","type","code"}}`, and then the end:
    /// the only word of ours that OpenAI's clients understand.
    OpenAi,
    /// Ids only. What would have to be said ends the body instead.
    Silent,
}

/// What delivering adds to an event and its id at most, reconnect delay included.
const FRAMED: usize = 36;

impl Voice {
    /// Whether a client is told of an ending by an event, whose id it then has.
    pub(crate) fn tells(self, ending: &Ending) -> bool {
        let supplied = match self {
            Self::Named | Self::Json => true,
            Self::OpenAi => ending.state != StreamState::Completed,
            Self::Silent => false,
        };
        supplied || ending.event.is_some()
    }
}

/// What the library has to say.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    Connected(&'a StreamId),
    Gap(Gap),
    Restart(u64),
    Ending(&'a Ended),
}

/// Whether the body goes on after a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    GoOn,
    End,
}

impl After {
    pub(crate) fn goes_on(self) -> bool {
        self == Self::GoOn
    }
}

/// Writes a body's blocks: the inner service's events with their ids, and the library's own words.
#[derive(Debug)]
pub(crate) struct Speaker {
    framing: std::sync::Arc<dyn Framing>,
    voice: Voice,
    /// The reconnect delay, until it is said.
    retry: Option<u64>,
    id: CursorWriter,
    out: BytesMut,
}

impl Speaker {
    /// `prefix` stands before every id where the library made up the stream's.
    pub(crate) fn new(
        framing: std::sync::Arc<dyn Framing>,
        voice: Voice,
        prefix: Option<StreamId>,
        retry: Option<u64>,
    ) -> Self {
        Self { framing, voice, retry, id: CursorWriter::new(prefix), out: BytesMut::new() }
    }

    /// Hands its place in the conversation to another body.
    pub(crate) fn replacement(&mut self) -> Self {
        let framing = std::sync::Arc::clone(&self.framing);
        Self::new(framing, self.voice, self.id.stream().cloned(), self.retry.take())
    }

    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// Makes room for events of so many bytes, so that a frame of many is one allocation.
    pub(crate) fn reserve(&mut self, events: usize, bytes: usize) {
        if events == 0 {
            return;
        }
        self.out.reserve(bytes + events * (self.id.max_len() + FRAMED));
    }

    /// What was written, as one frame.
    pub(crate) fn take(&mut self) -> Option<bytes::Bytes> {
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }

    /// There is nothing to say for now: the room for it is given back.
    pub(crate) fn rest(&mut self) {
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
    }

    /// An event of the log.
    pub(crate) fn event(&mut self, block: &[u8], has_id: bool, id: EventId) {
        self.framing.deliver(block, has_id, Some(self.id.write(id)), self.retry.take(), &mut self.out);
    }

    /// Lines that are no event.
    pub(crate) fn aside(&mut self, lines: &[u8]) {
        self.out.extend_from_slice(lines);
    }

    pub(crate) fn heartbeat(&mut self) {
        self.out.extend_from_slice(self.framing.heartbeat());
    }

    /// The reconnect delay alone, for a body without events.
    pub(crate) fn retry_only(&mut self) {
        if let Some(retry) = self.retry.take() {
            self.framing.retry(retry, &mut self.out);
        }
    }

    /// The end of the stream: its own terminal event, or the library's word for it.
    pub(crate) fn end(&mut self, ended: &Ended) {
        match &ended.ending.event {
            Some(block) => self.event(block, true, ended.id),
            None => {
                self.notice(&Notice::Ending(ended));
            }
        }
    }

    /// What the library has to say, in the route's voice.
    pub(crate) fn notice(&mut self, notice: &Notice<'_>) -> After {
        let id = match notice {
            Notice::Ending(ended) => Some(ended.id),
            Notice::Connected(_) | Notice::Gap(_) | Notice::Restart(_) => None,
        };
        let (event, after) = match self.voice {
            Voice::Silent if matches!(notice, Notice::Connected(_)) => return After::GoOn,
            Voice::Silent => return After::End,
            Voice::OpenAi => match openai(notice) {
                Some(error) => (Event::new(error.to_string()), After::End),
                None if matches!(notice, Notice::Connected(_)) => return After::GoOn,
                None => return After::End,
            },
            Voice::Named => {
                let (name, data) = self.words(notice);
                (Event::new(data.to_string()).named(name), After::GoOn)
            }
            Voice::Json => {
                let (name, mut data) = self.words(notice);
                data["type"] = Value::from(name);
                (Event::new(data.to_string()), After::GoOn)
            }
        };
        self.say(&event, id);
        after
    }

    fn say(&mut self, event: &Event, id: Option<EventId>) {
        // JSON without line ends, names from this file: there is nothing that could not be encoded.
        let Ok(block) = self.framing.encode(event) else { return };
        match id {
            Some(id) => self.event(&block, false, id),
            None => self.framing.deliver(&block, false, None, self.retry.take(), &mut self.out),
        }
    }

    /// A notice's name and JSON data.
    fn words(&self, notice: &Notice<'_>) -> (&'static str, Value) {
        match notice {
            Notice::Connected(id) => ("connected", json!({ "streamId": id.as_str() })),
            Notice::Gap(gap) => {
                let wire = |id: EventId| match self.id.stream() {
                    Some(stream) => format!("{stream}.{id}"),
                    None => id.to_string(),
                };
                let (after, resumes_at) = (gap.after.map(wire), gap.resumes_at.map(wire));
                ("gap", json!({ "after": after, "resumesAt": resumes_at, "missed": gap.missed }))
            }
            Notice::Restart(epoch) => ("restart", json!({ "epoch": epoch.to_string() })),
            Notice::Ending(ended) => (ended.ending.state.as_str(), json!({ "reason": ended.ending.reason.as_deref() })),
        }
    }
}

/// The form in which OpenAI's clients understand that something went wrong; `None` where nothing did.
fn openai(notice: &Notice<'_>) -> Option<Value> {
    let (message, code) = match notice {
        Notice::Connected(_) => return None,
        Notice::Gap(_) => ("some events of this stream are lost", "gap"),
        Notice::Restart(_) => ("the stream was started over", "restart"),
        Notice::Ending(ended) => match ended.ending.state {
            StreamState::Completed => return None,
            StreamState::Failed => ("the stream failed", "failed"),
            StreamState::Cancelled => ("the stream was cancelled", "cancelled"),
            StreamState::Orphaned => ("the server that produced the stream was lost", "orphaned"),
            _ => ("the stream has expired", "expired"),
        },
    };
    let reason = match notice {
        Notice::Ending(ended) => ended.ending.reason.as_deref().unwrap_or(code),
        _ => code,
    };
    Some(json!({ "error": { "message": message, "type": "stream_error", "code": reason } }))
}
