//! The registration of a follower with its stream.

use crate::{
    model::id::{EventId, StreamKey},
    node::Node,
    recorder::Reader,
    store::Tail,
    telemetry::Counted,
};

/// The registration of a follower: the stream's changes wake it, and it counts among the stream's readers.
pub(super) struct Following {
    pub(super) tail: Tail,
    /// The follower's entry among the lane's readers, if this node produces the stream.
    pub(super) reader: Option<Reader>,
    _counted: Counted,
}

impl Following {
    pub(super) fn new(node: &Node, key: &StreamKey, at: Option<EventId>) -> Self {
        // Taken before the first page is requested, so that no change in between is missed.
        let tail = node.store.tail(key);
        let reader = node.recorder.lane(key).map(|lane| Reader::enter(lane, at));
        let counted = Counted::new(&node.telemetry, |telemetry| &telemetry.followers);
        Self { tail, reader, _counted: counted }
    }

    /// Registers with the lane of a newer run on this node, if there is one. It is called with each page, since the
    /// store may report a run before the run's lane exists.
    pub(super) fn enter(&mut self, node: &Node, key: &StreamKey, at: Option<EventId>) {
        if self.reader.as_ref().is_none_or(Reader::is_over) {
            self.reader = node.recorder.lane(key).map(|lane| Reader::enter(lane, at));
        }
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::{MemoryStore, Owner, ResilientSse, StreamId, StreamSpec};

    /// The store may report a run before the run's lane exists.
    #[tokio::test(start_paused = true)]
    async fn g8_a_reader_that_comes_before_its_producer_is_counted_once_that_is_there() {
        let (sse, _guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build().expect("valid");
        let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").expect("valid"));
        let mut following = Following::new(&sse.0, &key, None);
        following.enter(&sse.0, &key, None);
        assert!(following.reader.is_none());
        let _job = sse.publisher().open(StreamSpec::new(key.owner.clone(), key.id.clone())).await.expect("new");
        following.enter(&sse.0, &key, None);
        assert_eq!(sse.0.recorder.lane(&key).expect("it runs").readers.followers(), 1);
        following.enter(&sse.0, &key, None);
        assert_eq!(sse.0.recorder.lane(&key).expect("it runs").readers.followers(), 1, "once");
    }
}
