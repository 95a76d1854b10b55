//! The query of a recovery request.

use http::request::Parts;

use crate::{
    model::id::{Cursor, EventId, StreamId},
    node::request::{parameter, parameters},
    protocol::cursor::LastSeen,
};

/// How many events a page has, unless the request sets `limit`.
const DEFAULT_LIMIT: usize = 1000;

/// How many events a page has at most.
const MAX_LIMIT: usize = 10_000;

/// The query of a recovery request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecoverQuery {
    pub(super) after: After,
    pub(super) limit: usize,
    /// Whether the answer has a page of events even if the stream has ended.
    pub(super) is_paged: bool,
}

/// The place in the log after which a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The request has no cursor: the page begins with the first event of the newest run.
    Nothing,
    Event(EventId),
    /// The cursor belongs to another stream: the page begins with the first event held.
    Elsewhere,
}

impl RecoverQuery {
    /// Parses `?events=true&after=<id>&limit=<n>` for the stream `id`. The error names the parameter and its rule.
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
