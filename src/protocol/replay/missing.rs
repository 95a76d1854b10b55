//! Counts the events that are missing from a log.

use super::{Gap, Owed, Replay};
use crate::model::{id::EventId, stream::Record};

/// Counts the events that a reader of a log's pages does not get.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    place: Replay,
    reported: Option<u64>,
}

impl Missing {
    /// Creates the counter for a page that begins at `place`.
    pub(crate) const fn on(place: Replay) -> Self {
        Self { place, reported: Some(0) }
    }

    /// Creates the counter for a whole log. `previous`: see [`StreamInfo::previous`](crate::StreamInfo).
    pub(crate) const fn of_stream(previous: Option<EventId>) -> Self {
        // If the stream has had a single run, the ids alone tell how many of its first events are missing, even if the
        // entry that starts the run is gone.
        Self::on(Replay::fresh(if previous.is_some() { Owed::Stream } else { Owed::Run }))
    }

    /// Takes the next entry of the log.
    pub(crate) fn take(&mut self, record: &Record) {
        let step = self.place.step(record);
        self.reported = add(self.reported, step.and_then(|step| step.gap));
    }

    /// Ends the log. `top` is the newest event that the store knows of.
    ///
    /// The log may have no entry for it: after a store forgot a stream, the producer's registration tells how far it
    /// had come.
    pub(crate) fn end_at(&mut self, top: EventId) {
        self.place.end_at(top);
    }

    /// Returns how many events were missing so far; `None` if the number is not known.
    pub(crate) fn count(&self) -> Option<u64> {
        add(self.reported, self.place.gap)
    }
}

fn add(missing: Option<u64>, gap: Option<Gap>) -> Option<u64> {
    match gap {
        Some(gap) => missing.zip(gap.missed).map(|(before, missed)| before.saturating_add(missed)),
        None => missing,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{after, end, event, run};
    use super::*;

    fn missing(mut missing: Missing, log: &[Record]) -> Option<u64> {
        for record in log {
            missing.take(record);
        }
        missing.count()
    }

    #[test]
    fn g1_what_a_page_lacks_is_counted() {
        let of_run = |log: &[_]| missing(Missing::on(Replay::fresh(Owed::Run)), log);
        assert_eq!(of_run(&[]), Some(0));
        assert_eq!(of_run(&[event(5, 1), event(5, 2), end(5, 2)]), Some(0));
        assert_eq!(of_run(&[event(5, 4), event(5, 6), end(5, 9)]), Some(3 + 1 + 3));
        let after = |log: &[_]| missing(Missing::on(after(5, 2)), log);
        assert_eq!(after(&[event(5, 6)]), Some(3));
        assert_eq!(after(&[run(9, Some((5, 4)))]), Some(2), "at the page's very end");
        assert_eq!(after(&[run(9, Some((5, 4))), event(9, 3)]), Some(4));
        assert_eq!(after(&[event(9, 3)]), None, "how much was before that run is not known");
        assert_eq!(missing(Missing::on(Replay::unknown(None, Owed::Run)), &[event(5, 1)]), None);
    }

    #[test]
    fn g1_what_is_lost_behind_all_that_is_held_is_counted() {
        let up_to = |place: Replay, log: &[Record], top: (u64, u64)| {
            let mut missing = Missing::on(place);
            for record in log {
                missing.take(record);
            }
            missing.end_at(EventId::new(top.0, top.1));
            missing.count()
        };
        assert_eq!(up_to(Replay::fresh(Owed::Run), &[], (5, 3)), Some(3));
        assert_eq!(up_to(Replay::fresh(Owed::Run), &[event(5, 2)], (5, 3)), Some(2));
        assert_eq!(up_to(Replay::fresh(Owed::Run), &[event(5, 1)], (5, 1)), Some(0));
        assert_eq!(up_to(after(5, 1), &[], (5, 3)), Some(2));
        assert_eq!(up_to(Replay::fresh(Owed::Nothing), &[], (5, 3)), Some(0), "a feed's reader is owed nothing");
        assert_eq!(up_to(after(5, 1), &[event(5, 2), end(5, 2)], (6, 0)), Some(0), "an end is no event");
        assert_eq!(up_to(after(5, 9), &[], (5, 3)), Some(0), "a client may be ahead of the log");
        assert_eq!(up_to(Replay::unknown(None, Owed::Run), &[], (5, 3)), None);
    }

    #[test]
    fn g1_what_a_stream_lacks_is_counted_over_its_runs() {
        let of_one_run = |log: &[_]| missing(Missing::of_stream(None), log);
        assert_eq!(of_one_run(&[run(5, None), event(5, 1), end(5, 1)]), Some(0));
        assert_eq!(of_one_run(&[event(5, 4), end(5, 4)]), Some(3), "its marker is trimmed too");
        assert_eq!(of_one_run(&[end(5, 4)]), Some(4));
        let previous = Some(EventId::new(5, 3));
        let of_two = |log: &[_]| missing(Missing::of_stream(previous), log);
        let first = [run(5, None), event(5, 1), event(5, 2), event(5, 3)];
        let second = [run(9, Some((5, 3))), event(9, 1), end(9, 1)];
        assert_eq!(of_two(&[&first[..], &second].concat()), Some(0));
        assert_eq!(of_two(&[&first[..2], &second].concat()), Some(2));
        for from in 1..4 {
            assert_eq!(of_two(&[&first[from..], &second].concat()), None, "another run may have been before");
        }
        for from in 0..3 {
            assert_eq!(of_two(&second[from..]), None, "the first run is gone");
        }
        let empty = [run(5, None), run(9, Some((5, 3))), end(9, 0)];
        assert_eq!(of_two(&empty), Some(3), "nothing of it was recorded");
    }
}
