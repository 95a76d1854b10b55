//! Reads the event that a client saw last from the cursors that it sent.

use crate::model::id::{Cursor, StreamId};

/// The event that a client says it saw last. Of several from one source the greater counts.
///
/// The text is dropped here: a foreign cursor is never echoed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LastSeen {
    /// It sent no cursor, or an empty one.
    Nothing,
    /// A text that this library did not write.
    Unreadable,
    /// `$`: the client wants only what comes from now on.
    Live,
    /// This event.
    Event(Cursor),
}

impl LastSeen {
    /// Chooses between the cursors that a request for the stream `own` holds. `None` is a stream whose name only a cursor knows.
    ///
    /// Some clients append the newest cursor to the old ones at each reconnect. So of several cursors one
    /// that can be read beats `$`, which beats one that cannot. Of two of one stream the greater counts; of two of different
    /// streams the one in a header.
    pub(crate) fn of<V: AsRef<[u8]>>(
        headers: impl Iterator<Item: AsRef<[u8]>>,
        query: impl Iterator<Item = V>,
        own: Option<&StreamId>,
    ) -> Self {
        let header = headers.map(|text| Self::parse(text.as_ref(), own)).max().unwrap_or(Self::Nothing);
        let query = query.map(|text| Self::parse(text.as_ref(), own)).filter(|query| header.gives_way_to(query)).max();
        query.map_or_else(|| header.clone(), |query| query.max(header.clone()))
    }

    /// Reads one cursor.
    pub(crate) fn parse(text: &[u8], own: Option<&StreamId>) -> Self {
        match std::str::from_utf8(text) {
            Ok("") => Self::Nothing,
            Ok("$") => Self::Live,
            text => match text.ok().and_then(Cursor::parse) {
                // With and without its name in front it is the same stream's.
                Some(Cursor { stream, at }) => {
                    Self::Event(Cursor { stream: stream.filter(|name| Some(name) != own), at })
                }
                None => Self::Unreadable,
            },
        }
    }

    /// Whether a cursor in the query may count in place of this one in a header.
    fn gives_way_to(&self, query: &Self) -> bool {
        match (self, query) {
            (Self::Event(header), Self::Event(query)) => header.stream == query.stream,
            _ => true,
        }
    }
}
