//! The format of the library's own messages to a stream's clients.

use crate::model::stream::{Ending, StreamState};

/// The format in which the library sends its own messages, such as a gap or an ending, to a stream's clients.
///
/// Strict clients fail on events that they do not know, so choose the voice that the route's clients understand. The
/// voice is stored with the stream: resume, relay and recovery use it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Voice {
    /// Named events with JSON data: `connected`, `gap`, `restart`, and endings by their state.
    #[default]
    Named,
    /// Unnamed events: `data: {"type":"gap",…}`.
    Json,
    /// No `connected`, and nothing at the end of a stream that is `completed`. Every other message is sent as
    /// `data: {"error":{"message","type","code"}}`, the only form that OpenAI's clients understand. The body breaks off
    /// after the message, unless the stream has ended.
    OpenAi,
    /// No messages, only event ids. A restart shows in the epoch of the ids. The body breaks off where events of a run
    /// are lost, and where the library supplies an ending other than `completed`.
    Silent,
}

impl Voice {
    /// Returns the name under which stores keep the voice.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Json => "json",
            Self::OpenAi => "openai",
            Self::Silent => "silent",
        }
    }

    /// Returns the voice with this name. A published stream has no voice in the store; it gets the default.
    #[cfg(feature = "redis")]
    pub(crate) fn named(name: Option<&str>) -> Self {
        let known = [Self::Named, Self::Json, Self::OpenAi, Self::Silent];
        known.into_iter().find(|known| Some(known.as_str()) == name).unwrap_or_default()
    }

    /// Whether a client receives an event, and with it the terminal id, for this ending.
    pub(crate) fn announces(self, ending: &Ending) -> bool {
        let supplied = match self {
            Self::Named | Self::Json => true,
            Self::OpenAi => ending.state != StreamState::Completed,
            Self::Silent => false,
        };
        supplied || ending.event.is_some()
    }
}
