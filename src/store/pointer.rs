//! Where a conversation points.

use std::time::Duration;

use crate::model::id::{StreamId, StreamKey};

/// How many streams stand behind the one that a pointer names, at most: turns that were registered and have not begun,
/// and the one that they are to replace.
pub(crate) const BEHIND: usize = 64;

/// A conversation's pointer: the newest stream, and those that it was to replace or to follow and that have not given way yet.
///
/// What stands behind is what makes a turn harmless that fails to begin: the pointer goes back to it. It stands
/// with the pointer, and not with the stream, so that of several turns that begin at once each may fail or start, in
/// any order, in one step of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pointer {
    /// The stream that it names.
    pub stream: StreamId,
    /// The run of that stream for which it was moved.
    pub epoch: u64,
    /// Those that it named before, the newest first. Empty once the stream has started and they have given way.
    pub behind: Vec<StreamId>,
}

/// The place of a turn among those of its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The run of its stream. A newer run takes the place of an older one, and what is asked for an older one later changes nothing.
    pub epoch: u64,
    /// How long ago the turn began; zero: now. The pointer's own clock says which of two turns is newer: clocks of the servers that
    /// hold their streams need not agree.
    pub since: Duration,
}

/// A request to move a conversation's pointer.
#[derive(Clone, Debug)]
pub struct Point {
    /// The conversation: its owner, and the owner's name for it.
    pub conversation: StreamKey,
    /// The stream that it is to name.
    pub stream: StreamId,
    /// Which turn that is. One that began a while ago goes behind those that the pointer was moved to since.
    pub place: Place,
    /// What it must name now.
    pub expected: Expected,
    /// How long it lives unless it is renewed: as long as the stream.
    pub ttl: Duration,
}

/// What a pointer must name for it to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// None.
    Nothing,
    /// This one.
    Stream(StreamId),
}

/// The outcome of [`Point`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pointed {
    /// It names the stream, by this request or a repeat of it; or a newer one, which this one stands behind.
    Moved(Pointer),
    /// It names another stream than expected, or has 64 streams behind it. An older run of the stream stands in it no more;
    /// nothing else has changed.
    Kept(Option<Pointer>),
}

/// A request to renew a pointer for the stream that it names.
#[derive(Clone, Debug)]
pub struct Renew {
    /// The conversation.
    pub conversation: StreamKey,
    /// The stream.
    pub stream: StreamId,
    /// How long it lives from now on.
    pub ttl: Duration,
    /// Whether a pointer that is not held is put back, and for which turn: the store lost it.
    pub put_back: Option<Place>,
}

/// The outcome of [`Renew`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewed {
    /// Where the pointer stands now.
    Stands(Option<Pointer>),
    /// This pointer cannot be renewed now. That says nothing of others.
    Refused,
}

impl Pointer {
    /// A pointer to a run of a stream, with nothing behind it.
    #[must_use]
    pub fn new(stream: StreamId, epoch: u64) -> Self {
        Self { stream, epoch, behind: Vec::new() }
    }

    /// Those that stand behind a stream, which is the one that is named or one of those behind it.
    pub(crate) fn behind(&self, stream: &StreamId) -> Vec<StreamId> {
        let mut all = std::iter::once(&self.stream).chain(&self.behind);
        // What is not there has nothing behind it.
        let _ = all.find(|named| *named == stream);
        all.cloned().collect()
    }

    /// Whether the stream is the one that is named, or stands behind it.
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
