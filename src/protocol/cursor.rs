//! Reads the last event that a client saw from the cursors in its request.

use crate::model::id::{Cursor, StreamId};

/// The last event that a client saw, according to its cursor. Of several cursors from one source the greatest counts.
///
/// An unreadable cursor is not kept, so it can never be echoed to a client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LastSeen {
    /// The request has no cursor, or an empty one.
    Nothing,
    /// The cursor is a text that this library did not write.
    Unreadable,
    /// The cursor is `$`: the client wants new events only.
    Live,
    /// The cursor names this event.
    Event(Cursor),
}

impl LastSeen {
    /// Chooses between the cursors in a request for the stream `own`. `own` is `None` if only a cursor can name the
    /// stream.
    ///
    /// Some clients append the newest cursor to the old ones at each reconnect. So a readable cursor wins over `$`, and
    /// `$` over an unreadable one. Of two cursors of one stream the greater wins. Of two cursors of different streams
    /// the one in a header wins.
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
                // A cursor of the stream `own` means the same with and without the stream id in front.
                Some(Cursor { stream, at }) => {
                    Self::Event(Cursor { stream: stream.filter(|name| Some(name) != own), at })
                }
                None => Self::Unreadable,
            },
        }
    }

    /// Whether a cursor in the query may replace this one from a header.
    fn gives_way_to(&self, query: &Self) -> bool {
        match (self, query) {
            (Self::Event(header), Self::Event(query)) => header.stream == query.stream,
            _ => true,
        }
    }
}
