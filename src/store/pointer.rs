//! Where a conversation points.

use std::time::Duration;

use crate::id::{StreamId, StreamKey};

/// How many streams stand behind the one that a pointer names, at most: turns that were registered and have not begun,
/// and the one that they are to replace.
pub(crate) const BEHIND: usize = 64;

/// A conversation's pointer: the newest stream, and those that it was to replace or to follow and that have not given way yet.
///
/// What stands behind is what makes a turn harmless that fails to begin: the pointer goes back to it. It stands
/// with the pointer, and not with the stream, so that of several turns that begin at once each may fail or start, in
/// any order, in one step of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The stream that it names.
    pub stream: StreamId,
    /// Those that it named before, the newest first. Empty once the stream has started and they have given way.
    pub behind: Vec<StreamId>,
}

/// A request to move a conversation's pointer.
#[derive(Clone, Debug)]
pub struct Point {
    /// The conversation: its owner, and the owner's name for it.
    pub conversation: StreamKey,
    /// The stream that it is to name.
    pub stream: StreamId,
    /// What it must name now.
    pub expected: Expected,
    /// How long it lives unless it is renewed: as long as the stream.
    pub ttl: Duration,
}

/// What a pointer must name for it to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any stream, or none.
    Any,
    /// None.
    Nothing,
    /// This one.
    Stream(StreamId),
}

/// The outcome of [`Point`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pointed {
    /// It names the stream, by this request or a repeat of it; or a newer one by now, which this one stands behind.
    Moved(Pointer),
    /// It names another stream than expected, or has 64 streams behind it; nothing has changed.
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
    /// Whether a pointer that is not held is put back: the store lost it.
    pub put_back: bool,
}

impl Pointer {
    pub(crate) fn to(stream: StreamId) -> Self {
        Self { stream, behind: Vec::new() }
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

/// The transitions, for stores that hold pointers in this form.
impl Pointer {
    pub(crate) fn moved(held: Option<Self>, stream: &StreamId, expected: &Expected) -> Pointed {
        let named = held.as_ref().map(|pointer| &pointer.stream);
        let is_expected = match expected {
            Expected::Any => true,
            Expected::Nothing => named.is_none(),
            Expected::Stream(stream) => named == Some(stream),
        };
        match held {
            Some(held) if held.knows(stream) => Pointed::Moved(held),
            held if !is_expected => Pointed::Kept(held),
            None => Pointed::Moved(Self::to(stream.clone())),
            Some(held) if held.behind.len() >= BEHIND => Pointed::Kept(Some(held)),
            Some(Self { stream: named, mut behind }) => {
                behind.insert(0, named);
                Pointed::Moved(Self { stream: stream.clone(), behind })
            }
        }
    }

    pub(crate) fn without(mut self, stream: &StreamId) -> Option<Self> {
        self.behind.retain(|behind| behind != stream);
        if self.stream == *stream {
            if self.behind.is_empty() {
                return None;
            }
            self.stream = self.behind.remove(0);
        }
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(names: &str) -> Pointer {
        let mut streams = names.split(' ').map(|name| StreamId::new(name).expect("valid"));
        Pointer { stream: streams.next().expect("one"), behind: streams.collect() }
    }

    #[test]
    fn what_stands_behind_a_stream_is_older() {
        let behind = |stream: &str| pointer("c b a").behind(&StreamId::new(stream).expect("valid"));
        let names = |stream| behind(stream).iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!((names("c"), names("b")), (vec!["b".to_owned(), "a".to_owned()], vec!["a".to_owned()]));
        assert_eq!((names("a"), names("other")), (vec![], vec![]));
    }
}
