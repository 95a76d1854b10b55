//! The pointers of conversations.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::entry::millis;
use crate::{
    id::{StreamId, StreamKey},
    store::{Point, Pointed, Pointer, Renew},
};

#[derive(Default)]
pub(super) struct Pointers {
    held: HashMap<StreamKey, Held>,
    /// One element for each pointer: when it expires.
    timers: BTreeSet<(u64, StreamKey)>,
}

struct Held {
    pointer: Pointer,
    expires_at: u64,
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

    pub(super) fn get(&self, conversation: &StreamKey, now: u64) -> Option<&Pointer> {
        self.held.get(conversation).filter(|held| held.expires_at > now).map(|held| &held.pointer)
    }

    pub(super) fn point(&mut self, point: &Point, now: u64) -> Pointed {
        let held = self.get(&point.conversation, now).cloned();
        let pointed = Pointer::moved(held, &point.stream, &point.expected);
        if let Pointed::Moved(pointer) = &pointed
            && pointer.stream == point.stream
        {
            self.put(&point.conversation, pointer.clone(), at(now, point.ttl));
        }
        pointed
    }

    /// Returns also whether the pointer names another stream than before.
    pub(super) fn unpoint(&mut self, conversation: &StreamKey, stream: &StreamId, now: u64) -> (Option<Pointer>, bool) {
        let Some(held) = self.get(conversation, now).cloned() else { return (None, false) };
        let goes_back = held.stream == *stream;
        let pointer = held.without(stream);
        match &pointer {
            Some(pointer) => self.change(conversation, pointer.clone()),
            None => self.remove(conversation),
        }
        (pointer, goes_back)
    }

    pub(super) fn give_way(&mut self, conversation: &StreamKey, streams: &[StreamId], now: u64) {
        let Some(mut pointer) = self.get(conversation, now).cloned() else { return };
        pointer.behind.retain(|behind| !streams.contains(behind));
        self.change(conversation, pointer);
    }

    pub(super) fn renew(&mut self, renew: &Renew, now: u64) -> Option<Pointer> {
        let held = self.get(&renew.conversation, now).cloned();
        let pointer = match held {
            Some(pointer) if pointer.stream == renew.stream => pointer,
            None if renew.put_back => Pointer::to(renew.stream.clone()),
            held => return held,
        };
        self.put(&renew.conversation, pointer.clone(), at(now, renew.ttl));
        Some(pointer)
    }

    fn put(&mut self, conversation: &StreamKey, pointer: Pointer, expires_at: u64) {
        self.remove(conversation);
        self.timers.insert((expires_at, conversation.clone()));
        self.held.insert(conversation.clone(), Held { pointer, expires_at });
    }

    /// The time stays.
    fn change(&mut self, conversation: &StreamKey, pointer: Pointer) {
        if let Some(held) = self.held.get_mut(conversation) {
            held.pointer = pointer;
        }
    }

    fn remove(&mut self, conversation: &StreamKey) {
        if let Some(held) = self.held.remove(conversation) {
            self.timers.remove(&(held.expires_at, conversation.clone()));
        }
    }
}

fn at(now: u64, ttl: Duration) -> u64 {
    now.saturating_add(millis(ttl))
}
