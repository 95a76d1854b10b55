//! The manner in which the library itself speaks to a stream's clients.

use crate::model::stream::{Ending, StreamState};

/// How the library tells a stream's clients what is not an event of the inner service.
///
/// Strict clients fail on events that they do not know, so the voice must be one that the route's
/// clients understand. It is stored with the stream: resume, relay and recovery speak it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Voice {
    /// Named events with JSON data: `connected`, `gap`, `restart`, and endings by their state.
    #[default]
    Named,
    /// Unnamed events: `data: {"type":"gap",…}`.
    Json,
    /// No `connected`, and nothing at the end of a stream that is `completed`. Anything else is told as
    /// `data: {"error":{"message","type","code"}}`, the only form that OpenAI's clients understand; unless the stream has
    /// ended, the body breaks after it.
    OpenAi,
    /// Ids only. A restart shows in the epoch of the ids. Lost events within a run, and an ending that the library supplies
    /// (but for `completed`), have no word here: the body breaks.
    Silent,
}

impl Voice {
    /// The voice's name, as it stands in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Json => "json",
            Self::OpenAi => "openai",
            Self::Silent => "silent",
        }
    }

    /// Reads a name back. A stream that says none is one that was published.
    #[cfg(feature = "redis")]
    pub(crate) fn named(name: Option<&str>) -> Self {
        let known = [Self::Named, Self::Json, Self::OpenAi, Self::Silent];
        known.into_iter().find(|known| Some(known.as_str()) == name).unwrap_or_default()
    }

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
