//! Conversations in the model, and the nodes' requests for their pointers.

use std::time::Duration;

use resilient_sse::{
    Overlap, Owner, Store as _, StreamId, StreamKey, Turn,
    store::{Expected, Place, Point, Pointed, Pointer, Renew, Renewed},
};

use super::{
    nodes::{Step, World, compare},
    reference::Model,
};

const TTLS: [u64; 3] = [40, 200, 1400];

pub(crate) fn conversation(owner: &Owner, name: &str) -> StreamKey {
    StreamKey::new(owner.clone(), StreamId::new(name).unwrap())
}

/// A turn in a pointer: its stream, its run, and when the pointer was moved to it.
#[derive(Clone, Debug)]
struct Turned {
    stream: StreamId,
    epoch: u64,
    at: u64,
}

/// A conversation's pointer: the turn that it names, then those that it named before.
#[derive(Clone, Debug)]
pub(crate) struct Pointing {
    turns: Vec<Turned>,
    expires: u64,
}

impl Pointing {
    fn told(&self) -> Option<Pointer> {
        let (named, behind) = self.turns.split_first()?;
        let behind = behind.iter().map(|turn| turn.stream.clone()).collect();
        let mut pointer = Pointer::new(named.stream.clone(), named.epoch);
        pointer.behind = behind;
        Some(pointer)
    }
}

impl Model {
    pub(crate) fn pointer(&mut self, conversation: &StreamKey) -> Option<Pointer> {
        self.pointing(conversation)?.told()
    }

    fn pointing(&mut self, conversation: &StreamKey) -> Option<&mut Pointing> {
        let now = self.now;
        self.pointers.get_mut(conversation).filter(|pointing| pointing.expires > now)
    }

    fn put(&mut self, conversation: &StreamKey, turns: Vec<Turned>, ttl: u64) {
        let expires = self.now + ttl;
        self.pointers.insert(conversation.clone(), Pointing { turns, expires });
    }

    /// Changes the turns of a pointer that is held, and not its time.
    fn change(&mut self, conversation: &StreamKey, turns: Vec<Turned>) {
        if turns.is_empty() {
            self.pointers.remove(conversation);
        } else if let Some(held) = self.pointing(conversation) {
            held.turns = turns;
        }
    }

    fn point(&mut self, point: &Point) -> Pointed {
        let ttl = u64::try_from(point.ttl.as_millis()).unwrap();
        let conversation = &point.conversation;
        let mut turns = self.pointing(conversation).map(|held| held.turns.clone()).unwrap_or_default();
        turns.retain(|turn| turn.stream != point.stream || turn.epoch >= point.place.epoch);
        if turns.iter().all(|turn| turn.stream != point.stream) {
            let expected = match &point.expected {
                Expected::Nothing => turns.is_empty(),
                Expected::Stream(stream) => turns.first().map(|turn| &turn.stream) == Some(stream),
            };
            if !expected {
                self.change(conversation, turns);
                return Pointed::Kept(self.pointer(conversation));
            }
            let since = u64::try_from(point.place.since.as_millis()).unwrap();
            let newest = turns.first().map_or(0, |turn| turn.at);
            let at = if since == 0 { self.now.max(newest) } else { self.now - since };
            let newer = if since == 0 { 0 } else { turns.iter().filter(|turn| turn.at >= at).count() };
            turns.insert(newer, Turned { stream: point.stream.clone(), epoch: point.place.epoch, at });
        }
        if turns[0].stream == point.stream {
            self.put(conversation, turns, ttl);
        } else {
            self.change(conversation, turns);
        }
        Pointed::Moved(self.pointer(conversation).unwrap())
    }

    pub(crate) fn unpoint(&mut self, conversation: &StreamKey, stream: &StreamId, epoch: Option<u64>) {
        let Some(held) = self.pointing(conversation) else { return };
        let is_meant = |turn: &Turned| turn.stream == *stream && epoch.is_none_or(|epoch| turn.epoch <= epoch);
        let goes_back = is_meant(&held.turns[0]);
        held.turns.retain(|turn| !is_meant(turn));
        let Some(named) = held.turns.first().cloned() else {
            self.pointers.remove(conversation);
            return;
        };
        if !goes_back {
            return;
        }
        let now = self.now;
        let key = StreamKey::new(conversation.owner.clone(), named.stream.clone());
        match self.held(&key).map(|stream| stream.expires.saturating_sub(now)) {
            Some(ttl) => self.renew(conversation, &named.stream, ttl, None),
            None => self.unpoint(conversation, &named.stream, Some(named.epoch)),
        }
    }

    fn give_way(&mut self, conversation: &StreamKey, streams: &[StreamId]) {
        if let Some(held) = self.pointing(conversation) {
            let behind = held.turns.split_off(1);
            held.turns.extend(behind.into_iter().filter(|turn| !streams.contains(&turn.stream)));
        }
    }

    pub(crate) fn renew(&mut self, conversation: &StreamKey, stream: &StreamId, ttl: u64, put_back: Option<Place>) {
        let turns = match (self.pointing(conversation), put_back) {
            (Some(held), _) if held.turns[0].stream == *stream => held.turns.clone(),
            (None, Some(Place { epoch, since })) => {
                let at = self.now - u64::try_from(since.as_millis()).unwrap();
                vec![Turned { stream: stream.clone(), epoch, at }]
            }
            _ => return,
        };
        self.put(conversation, turns, ttl);
    }

    /// The conversation that a stream is a turn of.
    pub(crate) fn conversation_of(&mut self, key: &StreamKey) -> Option<StreamKey> {
        let turn = self.held(key)?.turn.clone()?;
        Some(StreamKey::new(key.owner.clone(), turn.conversation))
    }

    /// The pointer that names a stream expires with it, at once if the stream has expired already.
    pub(crate) fn expires_with(&mut self, key: &StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        let (turn, ttl) = (stream.turn.clone(), stream.expires.saturating_sub(self.now));
        if let Some(turn) = turn {
            self.renew(&StreamKey::new(key.owner.clone(), turn.conversation), &key.id, ttl, None);
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

    /// The run of a turn, and how long ago that began.
    fn place(&mut self) -> Place {
        let since = Duration::from_millis(self.random.pick(&[0, 0, 1, 50, 500]));
        Place { epoch: self.random.below(3), since }
    }

    /// A node moves a pointer, takes a stream out, has streams give way, or renews; it may have died before any of
    /// these.
    pub(crate) async fn point(&mut self) -> Step {
        let (conversation, stream) = self.asked();
        match self.random.below(4) {
            0 | 1 => {
                let other = self.asked().1;
                let named = self.model.pointer(&conversation).map(|pointer| pointer.stream);
                let named = named.map_or(Expected::Nothing, Expected::Stream);
                let expected = self.random.pick(&[named.clone(), named, Expected::Nothing, Expected::Stream(other)]);
                let ttl = Duration::from_millis(self.random.pick(&TTLS));
                let place = self.place();
                let point = Point { conversation, stream, place, expected, ttl };
                let answer = self.store.point(point.clone()).await.unwrap();
                let name = if matches!(answer, Pointed::Moved(_)) { "point" } else { "point kept" };
                (name, compare(&point, &answer, &self.model.point(&point)))
            }
            2 => {
                let epoch = self.random.pick(&[None, Some(0), Some(1), Some(u64::MAX)]);
                let answer = self.store.unpoint(conversation.clone(), stream.clone(), epoch).await.unwrap();
                self.model.unpoint(&conversation, &stream, epoch);
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
        let (ttl, place) = (self.random.pick(&TTLS), self.place());
        let put_back = (self.random.below(2) == 0).then_some(place);
        let renew = Renew {
            conversation: conversation.clone(),
            stream: stream.clone(),
            ttl: Duration::from_millis(ttl),
            put_back,
        };
        let answer = self.store.renew(vec![renew]).await.unwrap().remove(0);
        self.model.renew(&conversation, &stream, ttl, put_back);
        let expected = Renewed::Stands(self.model.pointer(&conversation));
        ("renew", compare(&("renew", &stream), &answer, &expected))
    }

    /// Reads every pointer from the store, and compares it with the model's.
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
