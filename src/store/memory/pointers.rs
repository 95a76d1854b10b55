//! The pointers of conversations.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::clock::millis;
use crate::{
    model::id::{StreamId, StreamKey},
    store::{Expected, Place, Point, Pointed, Pointer, Renew, pointer::BEHIND},
};

#[derive(Default)]
pub(super) struct Pointers {
    held: HashMap<StreamKey, Held>,
    /// When each pointer expires.
    timers: BTreeSet<(u64, StreamKey)>,
}

struct Held {
    turns: Vec<Turn>,
    expires_at: u64,
}

/// A turn in a pointer. The newest comes first.
#[derive(Clone)]
struct Turn {
    stream: StreamId,
    epoch: u64,
    /// When the turn began, by the store's clock. Turns are in the order of these times, the latest first.
    at: u64,
}

impl Pointers {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.timers.is_empty()
    }

    /// Removes what has expired.
    pub(super) fn expire(&mut self, now: u64) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, conversation)) = self.timers.pop_first() {
                self.held.remove(&conversation);
            }
        }
    }

    pub(super) fn get(&self, conversation: &StreamKey, now: u64) -> Option<Pointer> {
        pointer_of(&self.turns(conversation, now))
    }

    fn turns(&self, conversation: &StreamKey, now: u64) -> Vec<Turn> {
        let held = self.held.get(conversation).filter(|held| held.expires_at > now);
        held.map(|held| held.turns.clone()).unwrap_or_default()
    }

    pub(super) fn point(&mut self, point: &Point, now: u64) -> Pointed {
        let mut turns = self.turns(&point.conversation, now);
        turns.retain(|turn| turn.stream != point.stream || turn.epoch >= point.place.epoch);
        let is_known = turns.iter().any(|turn| turn.stream == point.stream);
        let named = turns.first().map(|turn| &turn.stream);
        let is_expected = match &point.expected {
            Expected::Nothing => named.is_none(),
            Expected::Stream(stream) => named == Some(stream),
        };
        if !is_known && (!is_expected || turns.len() > BEHIND) {
            self.change(&point.conversation, turns.clone());
            return Pointed::Kept(pointer_of(&turns));
        }
        if !is_known {
            put_in(&mut turns, point, now);
        }
        if turns.first().is_some_and(|turn| turn.stream == point.stream) {
            self.put(&point.conversation, turns.clone(), at(now, point.ttl));
        } else {
            self.change(&point.conversation, turns.clone());
        }
        pointer_of(&turns).map_or(Pointed::Kept(None), Pointed::Moved)
    }

    /// Takes a stream out. Returns the pointer, and whether it names another stream than before.
    pub(super) fn unpoint(
        &mut self,
        conversation: &StreamKey,
        stream: &StreamId,
        epoch: Option<u64>,
        now: u64,
    ) -> (Option<Pointer>, bool) {
        let mut turns = self.turns(conversation, now);
        let is_meant = |turn: &Turn| turn.stream == *stream && epoch.is_none_or(|epoch| turn.epoch <= epoch);
        let goes_back = turns.first().is_some_and(is_meant);
        turns.retain(|turn| !is_meant(turn));
        let pointer = pointer_of(&turns);
        self.change(conversation, turns);
        (pointer, goes_back)
    }

    pub(super) fn give_way(&mut self, conversation: &StreamKey, streams: &[StreamId], now: u64) {
        let mut turns = self.turns(conversation, now);
        let mut is_named = true;
        turns.retain(|turn| std::mem::take(&mut is_named) || !streams.contains(&turn.stream));
        self.change(conversation, turns);
    }

    pub(super) fn renew(&mut self, renew: &Renew, now: u64) -> Option<Pointer> {
        let mut turns = self.turns(&renew.conversation, now);
        match (turns.first(), renew.put_back) {
            (Some(named), _) if named.stream == renew.stream => {}
            (None, Some(Place { epoch, since })) => {
                turns.push(Turn { stream: renew.stream.clone(), epoch, at: now.saturating_sub(millis(since)) });
            }
            _ => return pointer_of(&turns),
        }
        let pointer = pointer_of(&turns);
        self.put(&renew.conversation, turns, at(now, renew.ttl));
        pointer
    }

    fn put(&mut self, conversation: &StreamKey, turns: Vec<Turn>, expires_at: u64) {
        self.remove(conversation);
        self.timers.insert((expires_at, conversation.clone()));
        self.held.insert(conversation.clone(), Held { turns, expires_at });
    }

    /// Changes the turns of a pointer, and not when it expires.
    fn change(&mut self, conversation: &StreamKey, turns: Vec<Turn>) {
        if turns.is_empty() {
            self.remove(conversation);
        } else if let Some(held) = self.held.get_mut(conversation) {
            held.turns = turns;
        }
    }

    fn remove(&mut self, conversation: &StreamKey) {
        if let Some(held) = self.held.remove(conversation) {
            self.timers.remove(&(held.expires_at, conversation.clone()));
        }
    }
}

/// Inserts a turn: in front if it begins now, else behind those that the pointer was moved to since it began.
fn put_in(turns: &mut Vec<Turn>, point: &Point, now: u64) {
    let Place { epoch, since } = point.place;
    let newest = turns.first().map_or(0, |turn| turn.at);
    let (place, at) = if since.is_zero() {
        (0, now.max(newest))
    } else {
        let at = now.saturating_sub(millis(since));
        (turns.iter().position(|turn| turn.at < at).unwrap_or(turns.len()), at)
    };
    turns.insert(place, Turn { stream: point.stream.clone(), epoch, at });
}

fn pointer_of(turns: &[Turn]) -> Option<Pointer> {
    let (named, behind) = turns.split_first()?;
    let behind = behind.iter().map(|turn| turn.stream.clone()).collect();
    Some(Pointer { stream: named.stream.clone(), epoch: named.epoch, behind })
}

fn at(now: u64, ttl: Duration) -> u64 {
    now.saturating_add(millis(ttl))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Owner;

    fn stream(id: &str) -> StreamId {
        StreamId::new(id).expect("valid")
    }

    fn conversation() -> StreamKey {
        StreamKey::new(Owner::new("ada").expect("valid"), stream("talk"))
    }

    fn point(id: &str, since: u64, expected: Expected) -> Point {
        let place = Place { epoch: 1, since: Duration::from_millis(since) };
        Point { conversation: conversation(), stream: stream(id), place, expected, ttl: Duration::from_millis(50) }
    }

    #[test]
    fn a_pointer_is_gone_from_the_time_at_which_it_expires() {
        let mut pointers = Pointers::default();
        pointers.point(&point("a", 0, Expected::Nothing), 100);
        assert_eq!(pointers.get(&conversation(), 149), Some(Pointer::new(stream("a"), 1)));
        assert_eq!(pointers.get(&conversation(), 150), None);
        pointers.expire(149);
        assert!(!pointers.is_empty());
        pointers.expire(150);
        assert!(pointers.is_empty());
    }

    #[test]
    fn of_turns_that_began_at_the_same_time_the_first_that_was_pointed_to_is_named() {
        let mut pointers = Pointers::default();
        pointers.point(&point("a", 0, Expected::Nothing), 100);
        pointers.point(&point("b", 20, Expected::Stream(stream("a"))), 120);
        let pointer = pointers.get(&conversation(), 120).expect("held");
        assert_eq!((pointer.stream, pointer.behind), (stream("a"), vec![stream("b")]));
    }

    #[test]
    fn a_timer_that_is_left_counts_as_something_held() {
        let timers = BTreeSet::from([(1, conversation())]);
        assert!(!Pointers { timers, ..Pointers::default() }.is_empty());
        let held = HashMap::from([(conversation(), Held { turns: Vec::new(), expires_at: 1 })]);
        assert!(!Pointers { held, ..Pointers::default() }.is_empty());
    }
}
