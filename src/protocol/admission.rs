//! What happens to a request, from its cursor, its route's policy and what the store said.

use crate::{
    id::{Cursor, EventId, StreamId},
    stream::{Disconnect, Ended},
};

/// Where a consumer wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// No cursor: from the first event held of the newest run.
    Newest,
    /// `$`: only what comes from now on.
    Live,
    /// After the last event that the client saw.
    After(EventId),
    /// A cursor that cannot be read, or that is another stream's.
    Unreadable,
}

impl Position {
    /// Reads a cursor that a client sent for the stream `id`.
    ///
    /// A name inside the cursor must be the stream's own; a stream whose name the library made up
    /// is named by its cursors only, and `id` is `None` until one is read.
    pub(crate) fn of(cursor: Option<&str>, id: Option<&StreamId>) -> Self {
        match cursor {
            None | Some("") => Self::Newest,
            Some("$") => Self::Live,
            Some(text) => match Cursor::parse(text) {
                Some(cursor) if cursor.stream.is_none() || cursor.stream.as_ref() == id => Self::After(cursor.at),
                _ => Self::Unreadable,
            },
        }
    }

    /// Whether the client sent any cursor: it is then a reconnect, which may never be answered 400, 429 or 503.
    pub(crate) fn is_reconnect(self) -> bool {
        self != Self::Newest
    }

    /// Whether the client sent a cursor of something that was: the stream existed.
    pub(crate) fn names_what_was(self) -> bool {
        matches!(self, Self::After(_) | Self::Unreadable)
    }

    /// Whether a stream that the store does not know may be created for this request.
    ///
    /// A readable cursor says that the stream existed: its work is done again only where work may be done again.
    pub(crate) fn may_create(self, policy: Disconnect) -> bool {
        !matches!(self, Self::After(_)) || policy.reruns()
    }

    /// Whether the client has everything: the end, or all before an end that it is not `told` of.
    ///
    /// Without the latter it would come again for ever, for an id that no event of its route has.
    pub(crate) fn has_all(self, ended: &Ended, told: bool) -> bool {
        let Self::After(at) = self else { return false };
        at == ended.id || (!told && at.epoch == ended.last.epoch && at >= ended.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> StreamId {
        StreamId::new(text).expect("valid")
    }

    #[test]
    fn cursors_are_read_or_set_aside() {
        let own = id("own");
        let after = Position::After(EventId::new(5, 6));
        assert_eq!(Position::of(None, Some(&own)), Position::Newest);
        assert_eq!(Position::of(Some(""), Some(&own)), Position::Newest, "an EventSource without a last id");
        assert_eq!(Position::of(Some("$"), Some(&own)), Position::Live);
        assert_eq!(Position::of(Some("5-6"), Some(&own)), after);
        assert_eq!(Position::of(Some("own.5-6"), Some(&own)), after);
        assert_eq!(Position::of(Some("other.5-6"), Some(&own)), Position::Unreadable);
        assert_eq!(Position::of(Some("five"), Some(&own)), Position::Unreadable);
    }

    #[test]
    fn work_that_is_paid_for_is_never_done_twice() {
        let seen = Position::After(EventId::new(5, 6));
        assert!(!seen.may_create(Disconnect::DETACH));
        assert!(!seen.may_create(Disconnect::Cancel));
        assert!(seen.may_create(Disconnect::Interrupt));
        assert!(Position::Newest.may_create(Disconnect::DETACH));
        assert!(Position::Unreadable.may_create(Disconnect::DETACH));
    }
}
