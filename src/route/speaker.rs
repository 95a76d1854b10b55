//! How the library itself speaks on a route.

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

/// Frames of so few bytes are put together, up to so many bytes: two small writes cost more than one.
const SMALL: usize = 16 << 10;
const TOGETHER: usize = 64 << 10;

/// What the library has to say.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    Connected(&'a StreamId),
    Gap(Gap),
    Restart(u64),
    Ending(&'a Ended),
}

/// Gives a body its bytes: the frames of the inner service's events, and the library's own words between them.
#[derive(Debug)]
pub(crate) struct Speaker {
    framing: std::sync::Arc<dyn Framing>,
    voice: Voice,
    /// The reconnect delay, until it is said.
    retry: Option<u64>,
    /// What stands before every id, where the library made up the stream's.
    prefix: Option<StreamId>,
    /// Whether the library's endings carry ids: those of a stream that could not be registered do not.
    ids: bool,
    /// The piece to give next, those after it, and what is to be given after all of them.
    next: Option<Piece>,
    pieces: VecDeque<Piece>,
    out: BytesMut,
    /// The last event in `out`.
    out_up_to: Option<EventId>,
}

/// Bytes to give, and the last event in them.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    pub(crate) up_to: Option<EventId>,
}

impl Speaker {
    /// `prefix` stands before every id where the library made up the stream's.
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

    /// For a stream that could not be registered: a cursor that nobody can serve is worse than none.
    pub(crate) fn without_ids(framing: std::sync::Arc<dyn Framing>, voice: Voice, retry: Option<u64>) -> Self {
        Self { ids: false, ..Self::new(framing, voice, None, retry) }
    }

    /// The store has said what stream it is: its name, where the library made that up, its voice, and the inner service's own
    /// delay. That is said even after another one was: the last one counts.
    pub(crate) fn learn(&mut self, prefix: Option<StreamId>, retry: Option<u64>, voice: Voice) {
        self.voice = voice;
        self.prefix = prefix;
        self.retry = retry.or(self.retry);
    }

    /// The store has said the inner service's own delay.
    pub(crate) fn learn_retry(&mut self, retry: Option<u64>) {
        self.retry = retry.or(self.retry);
    }

    /// Hands its place in the conversation to another body.
    pub(crate) fn replacement(&mut self) -> Self {
        let framing = std::sync::Arc::clone(&self.framing);
        Self { ids: self.ids, ..Self::new(framing, self.voice, self.prefix.clone(), self.retry.take()) }
    }

    /// Whether everything written was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.next.is_none() && self.out.is_empty()
    }

    /// Takes the next bytes of what is written.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.take_piece().map(|piece| piece.bytes)
    }

    /// The same, with the last event in them.
    pub(crate) fn take_piece(&mut self) -> Option<Piece> {
        let written = self.next.take().or_else(|| self.cut());
        self.next = self.pieces.pop_front();
        written
    }

    /// What was written after all frames.
    fn cut(&mut self) -> Option<Piece> {
        (!self.out.is_empty()).then(|| Piece { bytes: self.out.split().freeze(), up_to: self.out_up_to.take() })
    }

    /// There is nothing to say for now: the room for it is given back.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            (self.pieces, self.out) = (VecDeque::new(), BytesMut::new());
        }
    }

    /// Events of the log, up to this one, as they were written for everybody.
    pub(crate) fn frame(&mut self, frame: Bytes, up_to: EventId) {
        if let Some(retry) = self.retry.take() {
            // The inner service's own delay wins.
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

    /// A terminal event.
    fn event(&mut self, block: &[u8], id: EventId) {
        // The inner service's own delay wins.
        let retry = self.retry.take().filter(|_| self.framing.retry_in(block).is_none());
        let mut written = CursorWriter::new(self.prefix.clone());
        let id = if self.ids { Some(written.write(id)) } else { None };
        self.framing.deliver(block, true, id, retry, &mut self.out);
    }

    /// Lines that are no event.
    pub(crate) fn aside(&mut self, lines: &[u8]) {
        if self.retry.is_some() && self.framing.retry_in(lines).is_some() {
            self.retry = None;
        }
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

    /// The end of the stream: its own terminal event, or the library's word for it. Returns whether there was one.
    pub(crate) fn end(&mut self, ended: &Ended) -> bool {
        match &ended.ending.event {
            Some(block) => {
                self.event(block, ended.id);
                true
            }
            None => self.notice(&Notice::Ending(ended)),
        }
    }

    /// The last words of a body that breaks: the voice's error form where it has one, and the reconnect delay.
    pub(crate) fn unfinished(&mut self, error: &BodyError) {
        match (self.voice, error) {
            // The library's own ending was told in that form already, where there is one.
            (Voice::OpenAi, error) if !matches!(error, BodyError::Ended { .. }) => {
                self.say(&openai(&error.to_string(), code(error)), None);
            }
            _ => self.retry_only(),
        }
    }

    /// Says what the library has to say, in the route's voice. Returns whether the voice has a word for it.
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
                let (name, data) = self.words(notice);
                Event::new(data.to_string()).named(name)
            }
            Voice::Json => {
                let (name, mut data) = self.words(notice);
                data["type"] = Value::from(name);
                Event::new(data.to_string())
            }
        };
        let id = match notice {
            Notice::Ending(ended) => Some(ended.id),
            Notice::Connected(_) | Notice::Gap(_) | Notice::Restart(_) => None,
        };
        self.say(&event, id);
        true
    }

    fn say(&mut self, event: &Event, id: Option<EventId>) {
        // JSON without line ends, names from this file: there is nothing that could not be encoded.
        let Ok(block) = self.framing.encode(event) else { return };
        match id {
            Some(id) => self.event(&block, id),
            None => self.framing.deliver(&block, false, None, self.retry.take(), &mut self.out),
        }
    }

    /// A notice's name and JSON data.
    fn words(&self, notice: &Notice<'_>) -> (&'static str, Value) {
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

/// Whether the ids that follow tell this to a client that gets ids only.
fn tells_by_ids(notice: &Notice<'_>) -> bool {
    match notice {
        Notice::Connected(_) | Notice::Restart(_) => true,
        Notice::Gap(gap) => gap.crosses_runs() || gap.of_nothing_known,
        Notice::Ending(_) => false,
    }
}

/// The form in which OpenAI's clients understand that something went wrong.
fn openai(message: &str, code: &str) -> Event {
    Event::new(json!({ "error": { "message": message, "type": "stream_error", "code": code } }).to_string())
}

/// How an ending that the library supplies reads as an error: its message and its code.
fn ending(ended: &Ended) -> (&'static str, &str) {
    let (message, code) = match ended.ending.state {
        StreamState::Cancelled => ("the stream was cancelled", "cancelled"),
        StreamState::Orphaned => ("the server that produced the stream was lost", "orphaned"),
        StreamState::Expired => ("the stream has expired", "expired"),
        _ => ("the stream failed", "failed"),
    };
    (message, ended.ending.reason.as_deref().unwrap_or(code))
}

/// The code of an error chunk for a body that breaks.
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
