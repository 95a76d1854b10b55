//! What a recovery request asks for.

use http::request::Parts;

use crate::{
    model::id::{Cursor, EventId, StreamId},
    node::request::{parameter, parameters},
    protocol::cursor::LastSeen,
};

/// Events in an answer, unless the request asks for fewer or more.
const DEFAULT_LIMIT: usize = 1000;

/// Events in an answer at most.
const MAX_LIMIT: usize = 10_000;

/// What a recovery request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecoverQuery {
    pub(super) after: After,
    pub(super) limit: usize,
    /// Whether the answer has a page of events also where the stream has ended.
    pub(super) is_paged: bool,
}

/// From where a page of events goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// From the first event of the newest run.
    Nothing,
    Event(EventId),
    /// A cursor of another stream: it hides nothing.
    Elsewhere,
}

impl RecoverQuery {
    /// Reads `?events=true&after=<id>&limit=<n>` for the stream `id`; the error names the parameter and its rule.
    pub(crate) fn parse(request: &Parts, id: &StreamId) -> Result<Self, &'static str> {
        let after = match LastSeen::of(std::iter::empty::<&[u8]>(), parameters(request, "after"), Some(id)) {
            LastSeen::Nothing => After::Nothing,
            LastSeen::Event(Cursor { stream: None, at }) => After::Event(at),
            LastSeen::Event(_) => After::Elsewhere,
            LastSeen::Live | LastSeen::Unreadable => return Err("`after` is an event's id, as in e1700000000000-7"),
        };
        let limit = match parameter(request, "limit") {
            None => None,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=MAX_LIMIT) => Some(limit),
                _ => return Err("`limit` is a number from 1 to 10000"),
            },
        };
        let events = match parameter(request, "events").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err("`events` is true or false"),
        };
        let is_paged = events || limit.is_some() || after != After::Nothing;
        Ok(Self { after, limit: limit.unwrap_or(DEFAULT_LIMIT), is_paged })
    }
}
