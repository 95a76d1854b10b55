//! Reads the end, a new run and missing events from the ids of events.

use std::mem;

use super::{Gap, Restart};
use crate::model::id::Cursor;

/// The position of a reader in a stream, from the ids of the library (`e<epoch>-<seq>`). Other ids are ignored.
///
/// Seqs are dense, and each run has a higher epoch. So the ids alone show a missing event or a new run, even in a voice
/// without `gap` and `restart`, and even if a server or a proxy left events out silently.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    last: Option<Cursor>,
    /// Whether the server has sent a `gap` since the last event.
    told_gap: bool,
    /// Whether the server has sent a `restart` since the last event.
    told_restart: bool,
}

/// What the id of an event reveals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Whether the id has the library's form.
    pub(super) is_known: bool,
    /// Whether the id is that of a terminal event.
    pub(super) is_end: bool,
    /// The missing events before this one, unless the server has sent a `gap` for them.
    pub(super) gap: Option<Gap>,
    /// The new run that this event begins, unless the server has sent a `restart` for it.
    pub(super) restart: Option<Restart>,
}

impl Place {
    /// Returns the place of a reader whose last event had this id.
    pub(super) fn at(id: &str) -> Self {
        Self { last: Cursor::parse(id), ..Self::default() }
    }

    /// Records that the server has sent a `gap`.
    pub(super) fn told_gap(&mut self) {
        self.told_gap = true;
    }

    /// Records that the server has sent a `restart`.
    pub(super) fn told_restart(&mut self) {
        self.told_restart = true;
    }

    /// Moves the place to an event with this id, and returns what the id reveals.
    pub(super) fn arrive(&mut self, id: &str) -> Arrival {
        let (told_gap, told_restart) = (mem::take(&mut self.told_gap), mem::take(&mut self.told_restart));
        let Some(cursor) = Cursor::parse(id) else {
            self.last = None;
            return Arrival::default();
        };
        let last = self.last.replace(cursor.clone()).filter(|last| last.stream == cursor.stream);
        let (at, is_end) = (cursor.at, cursor.at.seq == 0);
        let mut arrival = Arrival { is_known: true, is_end, ..Arrival::default() };
        let Some(last) = last.filter(|_| !is_end) else { return arrival };
        let is_new_run = at.epoch > last.at.epoch;
        // The first event of a run has seq 1. An older run or an older seq is no gap: the server may repeat events.
        let due = if is_new_run { 1 } else { last.at.seq.saturating_add(1) };
        if at.epoch >= last.at.epoch && at.seq > due && !told_gap {
            let missed = (!is_new_run).then(|| at.seq - due);
            arrival.gap = Some(Gap { after: Some(last.to_string()), resumes_at: Some(id.to_owned()), missed });
        }
        if is_new_run && !told_restart {
            arrival.restart = Some(Restart { epoch: Some(at.epoch) });
        }
        arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(after: &str, resumes_at: &str, missed: Option<u64>) -> Option<Gap> {
        Some(Gap { after: Some(after.to_owned()), resumes_at: Some(resumes_at.to_owned()), missed })
    }

    #[test]
    fn dense_ids_say_nothing() {
        let mut place = Place::at("");
        for id in ["e5-1", "e5-2", "e5-3"] {
            assert_eq!(place.arrive(id), Arrival { is_known: true, ..Arrival::default() });
        }
        assert_eq!(place.arrive("e6-0"), Arrival { is_known: true, is_end: true, ..Arrival::default() });
    }

    #[test]
    fn a_hole_is_a_gap_unless_the_server_said_so() {
        let mut place = Place::at("x.e5-3");
        assert_eq!(place.arrive("x.e5-7").gap, gap("x.e5-3", "x.e5-7", Some(3)));
        place.told_gap();
        assert_eq!(place.arrive("x.e5-9").gap, None);
        assert_eq!(place.arrive("x.e5-11").gap, gap("x.e5-9", "x.e5-11", Some(1)), "it was said for one hole only");
    }

    #[test]
    fn another_run_is_a_restart_unless_the_server_said_so() {
        let mut place = Place::at("e5-3");
        let arrival = place.arrive("e9-1");
        assert_eq!((arrival.restart, arrival.gap), (Some(Restart { epoch: Some(9) }), None));
        place.told_restart();
        let arrival = place.arrive("e12-4");
        assert_eq!((arrival.restart, arrival.gap), (None, gap("e9-1", "e12-4", None)));
    }

    #[test]
    fn what_is_no_place_in_this_stream_says_nothing() {
        // In order: a cursor of another stream, an older epoch, an older event, an id of another system, no id.
        for (last, id) in [("a.e5-3", "b.e9-4"), ("e9-3", "e5-7"), ("e5-9", "e5-2"), ("7-3", "e5-4"), ("", "e5-4")] {
            let arrival = Place::at(last).arrive(id);
            assert_eq!(arrival, Arrival { is_known: true, ..Arrival::default() }, "{last} {id}");
        }
        assert_eq!(Place::at("e5-3").arrive("42"), Arrival::default());
        let most = format!("e{0}-{0}", u64::MAX);
        assert!(Place::at(&most).arrive(&most).is_known);
    }
}
