//! The pointer of a conversation, and the requests that change it.

use std::time::Duration;

use crate::model::id::{StreamId, StreamKey};

/// The most streams that stand behind the one that a pointer names: turns that were registered and have not started, and the
/// one that they are to replace.
pub(crate) const BEHIND: usize = 64;

/// A conversation's pointer: its newest stream, and behind that the earlier ones that have not given way to it yet.
///
/// If a turn fails to start, the pointer goes back to the stream behind it. The streams behind are kept with the pointer, not
/// with their streams: so when several turns begin at once, each may start or fail, in any order, in one step on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pointer {
    /// The stream that the pointer names.
    pub stream: StreamId,
    /// The run of that stream for which the pointer was moved.
    pub epoch: u64,
    /// The streams that the pointer named before, the newest first. Empty once the stream has started and they have given way.
    pub behind: Vec<StreamId>,
}

/// The place of a turn among those of its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The run of its stream. A newer run takes the place of an older one; later requests for the older one change nothing.
    pub epoch: u64,
    /// How long ago the turn began; zero means now. Turns are ordered by the clock of the server that has the pointer, since
    /// the clocks of the servers that have their streams need not agree.
    pub since: Duration,
}

/// A request to move a conversation's pointer.
#[derive(Clone, Debug)]
pub struct Point {
    /// The conversation: its owner, and the owner's name for it.
    pub conversation: StreamKey,
    /// The stream that the pointer is to name.
    pub stream: StreamId,
    /// The run of that stream, and when it began. A turn that began a while ago is put behind those that the pointer was moved
    /// to since.
    pub place: Place,
    /// What the pointer must name now.
    pub expected: Expected,
    /// How long the pointer lives unless it is renewed: as long as the stream.
    pub ttl: Duration,
}

/// What a pointer must name for it to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No stream.
    Nothing,
    /// This stream.
    Stream(StreamId),
}

/// The outcome of [`Point`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pointed {
    /// The pointer names the stream, by this request or one that it repeats. Or it names a newer turn, and the stream stands
    /// behind that.
    Moved(Pointer),
    /// The pointer names another stream than expected, or has 64 streams behind it. If it had an older run of the stream, that
    /// was taken out; nothing else has changed.
    Kept(Option<Pointer>),
}

/// A request to renew a pointer for the stream that it names.
#[derive(Clone, Debug)]
pub struct Renew {
    /// The conversation.
    pub conversation: StreamKey,
    /// The stream that the pointer must name.
    pub stream: StreamId,
    /// How long the pointer lives from now on.
    pub ttl: Duration,
    /// The turn for which the pointer is put back if the store lost it. `None`: it is not put back.
    pub put_back: Option<Place>,
}

/// The outcome of [`Renew`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewed {
    /// The pointer as it is now.
    Stands(Option<Pointer>),
    /// This pointer cannot be renewed now; others may be.
    Refused,
}

impl Pointer {
    /// A pointer to a run of a stream, with nothing behind it.
    #[must_use]
    pub fn new(stream: StreamId, epoch: u64) -> Self {
        Self { stream, epoch, behind: Vec::new() }
    }

    /// The streams behind `stream`, which is the one that the pointer names or one of those behind it.
    pub(crate) fn behind(&self, stream: &StreamId) -> Vec<StreamId> {
        let mut all = std::iter::once(&self.stream).chain(&self.behind);
        // A stream that is not in the pointer has nothing behind it.
        let _ = all.find(|named| *named == stream);
        all.cloned().collect()
    }

    /// Whether the pointer names the stream, or has it behind the one that it names.
    pub(crate) fn knows(&self, stream: &StreamId) -> bool {
        self.stream == *stream || self.behind.contains(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_a_stream_is_older() {
        let stream = |name: &str| StreamId::new(name).expect("valid");
        let pointer = Pointer { stream: stream("c"), epoch: 1, behind: vec![stream("b"), stream("a")] };
        let names = |name| pointer.behind(&stream(name)).iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!((names("c"), names("b")), (vec!["b".to_owned(), "a".to_owned()], vec!["a".to_owned()]));
        assert_eq!((names("a"), names("other")), (vec![], vec![]));
    }
}
