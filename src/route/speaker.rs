//! The writer of a response body: it writes the events of the log and the library's own notices.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use crate::{
    model::{
        error::BodyError,
        event::Event,
        id::{CursorWriter, EventId, StreamId},
        stream::{Ended, StreamState},
        voice::Voice,
    },
    protocol::replay::Gap,
    wire::Framing,
};

/// Frames of up to `SMALL` bytes are joined into pieces of about `TOGETHER` bytes, since two small writes cost more
/// than one.
const SMALL: usize = 16 << 10;
const TOGETHER: usize = 64 << 10;

/// A notice of the library's own to a client.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    Connected(&'a StreamId),
    Gap(Gap),
    Restart(u64),
    Ending(&'a Ended),
}

/// Writes the bytes of a response body: the frames of the inner service's events, and the library's notices between
/// them.
#[derive(Debug)]
pub(crate) struct Speaker {
    framing: std::sync::Arc<dyn Framing>,
    voice: Voice,
    /// The reconnect delay, until it is written.
    retry: Option<u64>,
    /// The prefix of every event id, if the library made up the stream's id.
    prefix: Option<StreamId>,
    /// Whether the library's endings carry ids. Those of an unrecorded stream do not.
    ids: bool,
    /// The piece to give next. It is apart from `pieces` so that a single piece needs no allocation.
    next: Option<Piece>,
    /// The pieces after `next`.
    pieces: VecDeque<Piece>,
    /// The bytes that are written after all pieces.
    out: BytesMut,
    /// The last event in `out`.
    out_up_to: Option<EventId>,
}

/// Written bytes, and the last event in them.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    pub(crate) up_to: Option<EventId>,
}

impl Speaker {
    /// Makes a speaker. `prefix` stands before every event id, if the library made up the stream's id.
    pub(crate) fn new(
        framing: std::sync::Arc<dyn Framing>,
        voice: Voice,
        prefix: Option<StreamId>,
        retry: Option<u64>,
    ) -> Self {
        Self {
            framing,
            voice,
            retry,
            prefix,
            ids: true,
            next: None,
            pieces: VecDeque::new(),
            out: BytesMut::new(),
            out_up_to: None,
        }
    }

    /// Makes a speaker for an unrecorded stream. It writes no ids, since no store could serve them as cursors.
    pub(crate) fn without_ids(framing: std::sync::Arc<dyn Framing>, voice: Voice, retry: Option<u64>) -> Self {
        Self { ids: false, ..Self::new(framing, voice, None, retry) }
    }

    /// Sets what the store has reported of the stream: its prefix, its voice, and the inner service's reconnect delay.
    /// That delay is written even if another was written before, since a client uses the last one.
    pub(crate) fn set_stream(&mut self, prefix: Option<StreamId>, retry: Option<u64>, voice: Voice) {
        self.voice = voice;
        self.prefix = prefix;
        self.retry = retry.or(self.retry);
    }

    /// Sets the inner service's reconnect delay, if the store has reported one.
    pub(crate) fn set_retry(&mut self, retry: Option<u64>) {
        self.retry = retry.or(self.retry);
    }

    /// Returns a speaker for the body that continues this one.
    pub(crate) fn replacement(&mut self) -> Self {
        let framing = std::sync::Arc::clone(&self.framing);
        Self { ids: self.ids, ..Self::new(framing, self.voice, self.prefix.clone(), self.retry.take()) }
    }

    /// Whether all written bytes were taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.next.is_none() && self.out.is_empty()
    }

    /// Takes the next written bytes.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.take_piece().map(|piece| piece.bytes)
    }

    /// Takes the next written bytes, with the id of the last event in them.
    pub(crate) fn take_piece(&mut self) -> Option<Piece> {
        let written = self.next.take().or_else(|| self.cut());
        self.next = self.pieces.pop_front();
        written
    }

    /// Takes the bytes that were written after all pieces.
    fn cut(&mut self) -> Option<Piece> {
        (!self.out.is_empty()).then(|| Piece { bytes: self.out.split().freeze(), up_to: self.out_up_to.take() })
    }

    /// Frees the buffers if they are empty, so that a silent body holds no memory.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            (self.pieces, self.out) = (VecDeque::new(), BytesMut::new());
        }
    }

    /// Writes a frame of the log's events, the last of which is `up_to`.
    pub(crate) fn frame(&mut self, frame: Bytes, up_to: EventId) {
        if let Some(retry) = self.retry.take() {
            // If the first event sets a reconnect delay itself, that one counts.
            let first = &frame[..self.framing.first(&frame)];
            if self.framing.retry_in(first).is_none() {
                self.framing.retry(retry, &mut self.out);
            }
        }
        if frame.len() <= SMALL && !self.is_empty() && self.out.len() <= TOGETHER {
            self.out.extend_from_slice(&frame);
            self.out_up_to = Some(up_to);
            return;
        }
        if let Some(before) = self.cut() {
            self.queue(before);
        }
        self.queue(Piece { bytes: frame, up_to: Some(up_to) });
    }

    fn queue(&mut self, piece: Piece) {
        match &self.next {
            None => self.next = Some(piece),
            Some(_) => self.pieces.push_back(piece),
        }
    }

    /// Writes a terminal event.
    fn event(&mut self, block: &[u8], id: EventId) {
        // If the event sets a reconnect delay itself, that one counts.
        let retry = self.retry.take().filter(|_| self.framing.retry_in(block).is_none());
        let mut written = CursorWriter::new(self.prefix.clone());
        let id = if self.ids { Some(written.write(id)) } else { None };
        self.framing.deliver(block, true, id, retry, &mut self.out);
    }

    /// Writes lines of the inner body that are no event, such as comments.
    pub(crate) fn aside(&mut self, lines: &[u8]) {
        if self.retry.is_some() && self.framing.retry_in(lines).is_some() {
            self.retry = None;
        }
        self.out.extend_from_slice(lines);
    }

    pub(crate) fn heartbeat(&mut self) {
        self.out.extend_from_slice(self.framing.heartbeat());
    }

    /// Writes the reconnect delay alone, unless it is written already.
    pub(crate) fn retry_only(&mut self) {
        if let Some(retry) = self.retry.take() {
            self.framing.retry(retry, &mut self.out);
        }
    }

    /// Writes the end of the stream: its own terminal event, or the voice's notice of it. Returns whether an event was
    /// written.
    pub(crate) fn end(&mut self, ended: &Ended) -> bool {
        match &ended.ending.event {
            Some(block) => {
                self.event(block, ended.id);
                true
            }
            None => self.notice(&Notice::Ending(ended)),
        }
    }

    /// Writes the last bytes of a body that breaks: the voice's error event if it has one, and the reconnect delay.
    pub(crate) fn unfinished(&mut self, error: &BodyError) {
        match (self.voice, error) {
            // `end` has written an ending of the library's own in that form already.
            (Voice::OpenAi, error) if !matches!(error, BodyError::Ended { .. }) => {
                self.write(&openai(&error.to_string(), code(error)), None);
            }
            _ => self.retry_only(),
        }
    }

    /// Writes a notice in the stream's voice. Returns whether the client learns of it: from an event, or from the ids
    /// that follow.
    pub(crate) fn notice(&mut self, notice: &Notice<'_>) -> bool {
        let event = match self.voice {
            Voice::Silent => return tells_by_ids(notice),
            Voice::OpenAi => match notice {
                Notice::Connected(_) => return true,
                Notice::Gap(gap) if gap.of_nothing_known => return true,
                Notice::Ending(ended) if ended.ending.state != StreamState::Completed => {
                    let (message, code) = ending(ended);
                    openai(message, code)
                }
                Notice::Gap(_) | Notice::Restart(_) | Notice::Ending(_) => return false,
            },
            Voice::Named => {
                let (name, data) = self.name_and_data(notice);
                Event::new(data.to_string()).named(name)
            }
            Voice::Json => {
                let (name, mut data) = self.name_and_data(notice);
                data["type"] = Value::from(name);
                Event::new(data.to_string())
            }
        };
        let id = match notice {
            Notice::Ending(ended) => Some(ended.id),
            Notice::Connected(_) | Notice::Gap(_) | Notice::Restart(_) => None,
        };
        self.write(&event, id);
        true
    }

    fn write(&mut self, event: &Event, id: Option<EventId>) {
        // Encoding cannot fail: the data is JSON without line ends, and the names are those of this file.
        let Ok(block) = self.framing.encode(event) else { return };
        match id {
            Some(id) => self.event(&block, id),
            None => self.framing.deliver(&block, false, None, self.retry.take(), &mut self.out),
        }
    }

    /// Returns a notice's event name and JSON data.
    fn name_and_data(&self, notice: &Notice<'_>) -> (&'static str, Value) {
        match notice {
            Notice::Connected(id) => ("connected", json!({ "streamId": id.as_str() })),
            Notice::Gap(gap) => {
                let wire = |id: EventId| match &self.prefix {
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

/// Whether a client that gets ids only can tell the notice from the ids that follow.
fn tells_by_ids(notice: &Notice<'_>) -> bool {
    match notice {
        Notice::Connected(_) | Notice::Restart(_) => true,
        Notice::Gap(gap) => gap.crosses_runs() || gap.of_nothing_known,
        Notice::Ending(_) => false,
    }
}

/// Returns an event in the error form of OpenAI's clients.
fn openai(message: &str, code: &str) -> Event {
    Event::new(json!({ "error": { "message": message, "type": "stream_error", "code": code } }).to_string())
}

/// Returns the error message and code for an ending that the library supplies.
fn ending(ended: &Ended) -> (&'static str, &str) {
    let (message, code) = match ended.ending.state {
        StreamState::Cancelled => ("the stream was cancelled", "cancelled"),
        StreamState::Orphaned => ("the server that produced the stream was lost", "orphaned"),
        StreamState::Expired => ("the stream has expired", "expired"),
        _ => ("the stream failed", "failed"),
    };
    (message, ended.ending.reason.as_deref().unwrap_or(code))
}

/// Returns the code of the error event for a body that breaks.
fn code(error: &BodyError) -> &'static str {
    match error {
        BodyError::Draining => "shutdown",
        BodyError::Superseded => "superseded",
        BodyError::Gap => "gap",
        BodyError::Restart => "restart",
        BodyError::Gone => "gone",
        BodyError::NotOpened { .. } => "not_opened",
        BodyError::Ended { .. } | BodyError::Inner(_) => "failed",
        BodyError::Interrupted | BodyError::ComeAgain => "interrupted",
    }
}
