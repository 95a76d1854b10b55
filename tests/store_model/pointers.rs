//! Conversations in the model, and what nodes ask of their pointers.

use std::time::Duration;

use resilient_sse::{
    Overlap, Owner, Store as _, StreamId, StreamKey, Turn,
    store::{Expected, Point, Pointed, Pointer, Renew},
};

use super::{
    model::Model,
    nodes::{Step, World, compare},
};

const TTLS: [u64; 3] = [40, 200, 1400];

pub(crate) fn conversation(owner: &Owner, name: &str) -> StreamKey {
    StreamKey::new(owner.clone(), StreamId::new(name).unwrap())
}

/// A conversation's pointer: the stream that it names, then those that it named before.
#[derive(Clone, Debug)]
pub(crate) struct Pointing {
    streams: Vec<StreamId>,
    expires: u64,
}

impl Pointing {
    fn told(&self) -> Pointer {
        Pointer { stream: self.streams[0].clone(), behind: self.streams[1..].to_vec() }
    }
}

impl Model {
    pub(crate) fn pointer(&mut self, conversation: &StreamKey) -> Option<Pointer> {
        self.pointing(conversation).map(|pointing| pointing.told())
    }

    fn pointing(&mut self, conversation: &StreamKey) -> Option<&mut Pointing> {
        let now = self.now;
        self.pointers.get_mut(conversation).filter(|pointing| pointing.expires > now)
    }

    fn put(&mut self, conversation: &StreamKey, streams: Vec<StreamId>, ttl: u64) {
        let expires = self.now + ttl;
        self.pointers.insert(conversation.clone(), Pointing { streams, expires });
    }

    fn point(&mut self, point: &Point) -> Pointed {
        let ttl = u64::try_from(point.ttl.as_millis()).unwrap();
        let mut streams = self.pointing(&point.conversation).map(|held| held.streams.clone()).unwrap_or_default();
        if !streams.contains(&point.stream) {
            let expected = match &point.expected {
                Expected::Any => true,
                Expected::Nothing => streams.is_empty(),
                Expected::Stream(stream) => streams.first() == Some(stream),
            };
            if !expected {
                return Pointed::Kept(self.pointer(&point.conversation));
            }
            streams.insert(0, point.stream.clone());
        }
        if streams[0] == point.stream {
            self.put(&point.conversation, streams, ttl);
        }
        Pointed::Moved(self.pointer(&point.conversation).unwrap())
    }

    pub(crate) fn unpoint(&mut self, conversation: &StreamKey, stream: &StreamId) {
        let Some(held) = self.pointing(conversation) else { return };
        let goes_back = held.streams[0] == *stream;
        held.streams.retain(|other| other != stream);
        let Some(named) = held.streams.first().cloned() else {
            self.pointers.remove(conversation);
            return;
        };
        if !goes_back {
            return;
        }
        let now = self.now;
        let key = StreamKey::new(conversation.owner.clone(), named.clone());
        match self.held(&key).map(|stream| stream.expires.saturating_sub(now)) {
            Some(ttl) => self.renew(conversation, &named, ttl, false),
            None => self.unpoint(conversation, &named),
        }
    }

    fn give_way(&mut self, conversation: &StreamKey, streams: &[StreamId]) {
        if let Some(held) = self.pointing(conversation) {
            let named = held.streams[0].clone();
            held.streams.retain(|other| *other == named || !streams.contains(other));
        }
    }

    pub(crate) fn renew(&mut self, conversation: &StreamKey, stream: &StreamId, ttl: u64, put_back: bool) {
        let streams = match self.pointing(conversation) {
            Some(held) if held.streams[0] == *stream => held.streams.clone(),
            None if put_back => vec![stream.clone()],
            _ => return,
        };
        self.put(conversation, streams, ttl);
    }

    /// The conversation that a stream is a turn of.
    pub(crate) fn conversation_of(&mut self, key: &StreamKey) -> Option<StreamKey> {
        let turn = self.held(key)?.turn.clone()?;
        Some(StreamKey::new(key.owner.clone(), turn.conversation))
    }

    /// The pointer that names a stream expires with it, at once if it is over already.
    pub(crate) fn expires_with(&mut self, key: &StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        let (turn, ttl) = (stream.turn.clone(), stream.expires.saturating_sub(self.now));
        if let Some(turn) = turn {
            self.renew(&StreamKey::new(key.owner.clone(), turn.conversation), &key.id, ttl, false);
        }
    }
}

impl World {
    pub(crate) fn turn(&mut self) -> Option<Turn> {
        let name = self.random.pick(&[None, Some("chat"), Some("chat"), Some("other")])?;
        let overlap = self.random.pick(&[Overlap::Replace, Overlap::Refuse, Overlap::Allow]);
        Some(Turn { conversation: StreamId::new(name).unwrap(), overlap })
    }

    /// A conversation, and a stream of its owner that mostly is a turn of it.
    fn asked(&mut self) -> (StreamKey, StreamId) {
        let key = self.a_stream();
        let name = self.random.pick(&["chat", "chat", "other"]);
        (conversation(&key.owner, name), key.id)
    }

    /// A node moves a pointer, takes a stream out, has streams give way, or renews; it may have died before any of these.
    pub(crate) async fn point(&mut self) -> Step {
        let (conversation, stream) = self.asked();
        match self.random.below(4) {
            0 | 1 => {
                let other = self.asked().1;
                let expected =
                    self.random.pick(&[Expected::Any, Expected::Any, Expected::Nothing, Expected::Stream(other)]);
                let ttl = Duration::from_millis(self.random.pick(&TTLS));
                let point = Point { conversation, stream, expected, ttl };
                let answer = self.store.point(point.clone()).await.unwrap();
                let name = if matches!(answer, Pointed::Moved(_)) { "point" } else { "point kept" };
                (name, compare(&point, &answer, &self.model.point(&point)))
            }
            2 => {
                let answer = self.store.unpoint(conversation.clone(), stream.clone()).await.unwrap();
                self.model.unpoint(&conversation, &stream);
                ("unpoint", compare(&("unpoint", &stream), &answer, &self.model.pointer(&conversation)))
            }
            _ => self.keep_up(conversation, stream).await,
        }
    }

    async fn keep_up(&mut self, conversation: StreamKey, stream: StreamId) -> Step {
        if self.random.below(2) == 0 {
            self.store.give_way(conversation.clone(), vec![stream.clone()]).await.unwrap();
            self.model.give_way(&conversation, &[stream]);
            return ("give way", None);
        }
        let (ttl, put_back) = (self.random.pick(&TTLS), self.random.below(2) == 0);
        let renew = Renew {
            conversation: conversation.clone(),
            stream: stream.clone(),
            ttl: Duration::from_millis(ttl),
            put_back,
        };
        let answer = self.store.renew(vec![renew]).await.unwrap().remove(0);
        self.model.renew(&conversation, &stream, ttl, put_back);
        ("renew", compare(&("renew", &stream), &answer, &self.model.pointer(&conversation)))
    }

    /// Looks at every pointer through the store, and at the model's.
    pub(crate) async fn compare_pointers(&mut self) -> Result<(), String> {
        for owner in ["alice", "bob"] {
            for name in ["chat", "other"] {
                let key = conversation(&Owner::new(owner).unwrap(), name);
                let held = self.store.pointer(key.clone()).await.unwrap();
                let expected = self.model.pointer(&key);
                compare(&key, &held, &expected).map_or(Ok(()), Err)?;
            }
        }
        Ok(())
    }
}
