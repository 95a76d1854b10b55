//! Makes room when too many bytes wait for the store.
//!
//! While there is room, nothing is searched. Otherwise events are given up by the owners that hold the most, and among
//! an owner's streams by those that hold the most. So in an outage a stream with many events costs one with few events
//! nothing.
//!
//! Making room takes a walk over all lanes. Each walk frees a sixteenth of the whole room beyond what is needed, so
//! that walks are rare.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use super::{lane::Lane, room::PART, work::Recorder};
use crate::{model::id::Owner, runtime::sync::lock};

/// The part of the room up to which bodies produce ahead of their clients: an eighth.
const PART_AHEAD: usize = 8;

impl Recorder {
    /// Whether a body may produce events ahead of its client: while waiting events take at most an eighth of the room.
    /// The rest is for the batch that each stream produces in any case.
    pub(crate) fn has_room_ahead(&self) -> bool {
        self.room.events.load(Ordering::Relaxed).saturating_mul(PART_AHEAD) <= self.room.for_events()
    }

    /// Charges the room for events of this lane, and makes room if necessary. Returns `false` if there is no room and
    /// the lane itself holds nothing more to give up.
    pub(super) fn make_room(&self, lane: &Lane, bytes: usize) -> bool {
        if self.room.charge(bytes) {
            return true;
        }
        if bytes <= self.room.for_events() {
            let _making = lock(&self.room.making);
            if self.room.charge(bytes) {
                return true;
            }
            self.cut(Some((lane, bytes)));
        }
        // The events of other lanes may be in flight and cannot be given up, so this lane gives up its own.
        while !self.room.charge(bytes) {
            if self.take_from(lane, lane.held().saturating_sub(1)) == 0 {
                return false;
            }
        }
        true
    }

    /// Gives up the events that do not fit any more after an end took room.
    pub(super) fn fit(&self) {
        if self.room.events.load(Ordering::Relaxed) > self.room.for_events() {
            let _making = lock(&self.room.making);
            self.cut(None);
        }
    }

    /// Gives up events of the owners that hold the most, until the room asked for and a [`PART`] of the whole is free.
    fn cut(&self, asked: Option<(&Lane, usize)>) {
        let limit = self.room.for_events();
        let held = self.room.events.load(Ordering::Relaxed);
        let wanted = asked.map_or(0, |(_, bytes)| bytes);
        let mut over = (held + wanted + limit / PART).saturating_sub(limit);
        for (lane, keep) in self.shares(asked, over) {
            if over == 0 {
                return;
            }
            over = over.saturating_sub(self.take_from(&lane, keep));
        }
    }

    /// Gives up the oldest events of a lane until it holds at most `keep` bytes. Returns the number of bytes given up.
    fn take_from(&self, lane: &Lane, keep: usize) -> usize {
        let (events, bytes) = lane.give_up(keep);
        self.room.refund(bytes);
        self.lost(events);
        bytes
    }

    /// Returns the streams above their fair share, of the owners above theirs, largest first. Each comes with the bytes
    /// that it may keep so that all together hold `less` bytes less. The bytes asked for count as held.
    fn shares(&self, asked: Option<(&Lane, usize)>, less: usize) -> Vec<(Arc<Lane>, usize)> {
        let lanes = lock(&self.lanes);
        let mut owners: HashMap<&Owner, Holders<'_>> = HashMap::new();
        for lane in lanes.all() {
            let asks =
                asked.map_or(0, |(asking, bytes)| if std::ptr::eq(Arc::as_ptr(lane), asking) { bytes } else { 0 });
            let bytes = lane.held() + asks;
            if bytes > 0 {
                owners.entry(&lane.key.owner).or_default().add(lane, bytes, asks);
            }
        }
        let totals = owners.values().map(|holders| holders.bytes);
        let share = share(totals.clone().collect(), totals.sum::<usize>().saturating_sub(less));
        let mut over = Vec::new();
        for holders in owners.into_values().filter(|holders| holders.bytes > share) {
            let share = self::share(holders.lanes.iter().map(|(_, bytes, _)| *bytes).collect(), share);
            over.extend(holders.lanes.into_iter().filter(|(_, bytes, _)| *bytes > share).map(|held| (held, share)));
        }
        over.sort_by_key(|((_, bytes, _), _)| std::cmp::Reverse(*bytes));
        over.into_iter().map(|((lane, _, asks), share)| (Arc::clone(lane), share.saturating_sub(asks))).collect()
    }
}

/// The streams of an owner, each with the bytes that it holds and how many of these are only asked for.
#[derive(Default)]
struct Holders<'a> {
    bytes: usize,
    lanes: Vec<(&'a Arc<Lane>, usize, usize)>,
}

impl<'a> Holders<'a> {
    fn add(&mut self, lane: &'a Arc<Lane>, bytes: usize, asks: usize) {
        self.bytes += bytes;
        self.lanes.push((lane, bytes, asks));
    }
}

/// Returns the limit on each amount that keeps their sum within `total`. Smaller amounts are not raised.
fn share(mut amounts: Vec<usize>, mut total: usize) -> usize {
    amounts.sort_unstable();
    for (index, amount) in amounts.iter().enumerate() {
        let each = total / (amounts.len() - index);
        if *amount > each {
            return each;
        }
        total -= amount;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_takes_from_the_large_alone() {
        assert_eq!(share(vec![10, 20, 30], 60), usize::MAX);
        assert_eq!(share(vec![10, 20, 30], 50), 20);
        assert_eq!(share(vec![100, 1, 100], 101), 50);
        assert_eq!(share(vec![5, 5, 5], 9), 3);
        assert_eq!(share(vec![], 0), usize::MAX);
    }
}
