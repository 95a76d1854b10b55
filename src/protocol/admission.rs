//! Decides what happens to a request from its cursor, its route's policy and the store's answer.

use super::cursor::LastSeen;
use crate::model::{
    id::{Cursor, EventId},
    stream::{Disconnect, Ended, Ending, StreamInfo},
};

/// The position in a stream at which a consumer wants to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// The first event held of the newest run, for a request without a cursor.
    Newest,
    /// New events only, for the cursor `$`.
    Live,
    /// The event after the last one that the client saw.
    After(EventId),
    /// Unknown, because the cursor cannot be read or belongs to another stream.
    Unreadable,
}

impl Position {
    /// Returns the position of a client of a stream from the cursor that it sent. A cursor that still carries a stream
    /// id here names another stream, so it counts as unreadable.
    pub(crate) fn of(seen: &LastSeen) -> Self {
        match seen {
            LastSeen::Nothing => Self::Newest,
            LastSeen::Live => Self::Live,
            LastSeen::Event(Cursor { stream: None, at }) => Self::After(*at),
            LastSeen::Event(_) | LastSeen::Unreadable => Self::Unreadable,
        }
    }

    /// Whether the client sent any cursor. Such a reconnect is never answered 400, 429 or 503, because an `EventSource`
    /// would give up for good.
    pub(crate) fn is_reconnect(self) -> bool {
        self != Self::Newest
    }

    /// Whether the client sent a cursor that shows that the stream existed.
    pub(crate) fn shows_existence(self) -> bool {
        matches!(self, Self::After(_) | Self::Unreadable)
    }

    /// Whether the client has seen the end of its stream. Only terminal events have ids with seq 0.
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Self::After(at) if at.seq == 0)
    }

    /// Whether the client has every event of a stream in this state, see [`has_all`](Self::has_all).
    ///
    /// A client may have the end of a run that is still active: the store forgot the ended run, and the producer has
    /// registered it again and is about to end it again.
    pub(crate) fn has_all_of(self, info: &StreamInfo, announces: impl FnOnce(&Ending) -> bool) -> bool {
        match &info.ended {
            Some(ended) => self.has_all(ended, announces(&ended.ending)),
            None => self == Self::After(EventId::terminal(info.epoch)),
        }
    }

    /// Whether a stream that the store does not know may be created for this request.
    ///
    /// A readable cursor shows that the stream existed. Its handler runs again only on routes that allow that.
    pub(crate) fn may_create(self, policy: Disconnect) -> bool {
        !matches!(self, Self::After(_)) || (policy.reruns() && !self.is_end())
    }

    /// Whether the client has every event. `announced` says whether its voice writes the end as an event. If so, the
    /// client must have that terminal event, otherwise all events before it.
    ///
    /// A client to which the end is not announced never sees the terminal id. Without the second case it would reconnect
    /// for ever.
    pub(crate) fn has_all(self, ended: &Ended, announced: bool) -> bool {
        let Self::After(at) = self else { return false };
        at == ended.id || (!announced && at.epoch == ended.last.epoch && at >= ended.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        id::StreamId,
        stream::{StreamState, reason},
    };

    #[test]
    fn cursors_are_read_or_set_aside() {
        let own = StreamId::new("own").expect("valid");
        let of = |text: &str| Position::of(&LastSeen::parse(text.as_bytes(), Some(&own)));
        let after = Position::After(EventId::new(5, 6));
        assert_eq!(of(""), Position::Newest, "an EventSource without a last id");
        assert_eq!(of("$"), Position::Live);
        assert_eq!(of("e5-6"), after);
        assert_eq!(of("own.e5-6"), after);
        for other in ["other.e5-6", "five", "5-6", "0-0", "1700000000000-0"] {
            assert_eq!(of(other), Position::Unreadable, "{other}");
        }
    }

    #[test]
    fn a_position_says_what_the_client_has_seen() {
        let (seen, end) = (Position::After(EventId::new(5, 6)), Position::After(EventId::terminal(4)));
        // Whether it is a reconnect, shows that the stream existed, and is an end.
        let table = [
            (Position::Newest, [false, false, false]),
            (Position::Live, [true, false, false]),
            (seen, [true, true, false]),
            (end, [true, true, true]),
            (Position::Unreadable, [true, true, false]),
        ];
        for (position, said) in table {
            let says = [position.is_reconnect(), position.shows_existence(), position.is_end()];
            assert_eq!(says, said, "{position:?}");
        }
    }

    #[test]
    fn a_client_has_all_at_the_end_or_before_an_end_that_it_is_not_told_of() {
        let ending = Ending::supplied(StreamState::Completed, reason::EOF);
        let ended = Ended { ending, id: EventId::terminal(5), last: EventId::new(5, 6), at: 0 };
        // Whether the client has every event: if the end is announced to it, and if not.
        let table = [
            (Position::Newest, [false, false]),
            (Position::After(EventId::new(4, 7)), [false, false]),
            (Position::After(EventId::new(5, 5)), [false, false]),
            (Position::After(EventId::new(5, 6)), [false, true]),
            (Position::After(EventId::new(5, 7)), [false, true]),
            (Position::After(ended.id), [true, true]),
        ];
        for (position, has) in table {
            assert_eq!([true, false].map(|announced| position.has_all(&ended, announced)), has, "{position:?}");
        }
    }

    #[test]
    fn work_that_is_paid_for_is_never_done_twice() {
        let seen = Position::After(EventId::new(5, 6));
        assert!(!seen.may_create(Disconnect::DETACH));
        assert!(!seen.may_create(Disconnect::Cancel));
        assert!(seen.may_create(Disconnect::Interrupt));
        assert!(Position::Newest.may_create(Disconnect::DETACH));
        assert!(Position::Unreadable.may_create(Disconnect::DETACH));
        let end = Position::After(EventId::terminal(4));
        assert!(!end.may_create(Disconnect::Interrupt), "what has ended is not begun again");
    }
}
