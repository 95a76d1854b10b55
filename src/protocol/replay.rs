//! Exactly after the cursor, or an explicit gap (guarantee G1): what a reader of a log is owed.
//!
//! A log is dense within a run, says at the start of each run where the one before ended, and at its
//! end where the last one ended. So whatever is missing shows, wherever it is missing.

use crate::{
    id::EventId,
    stream::{Ended, RecordKind},
};

/// Events that a reader cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The last event that the reader has, where it is known to be this stream's.
    pub(crate) after: Option<EventId>,
    /// What comes next; `None` where that is not known yet.
    pub(crate) resumes_at: Option<EventId>,
    /// How many are missing, where that is known.
    pub(crate) missed: Option<u64>,
}

/// What is to be told before an entry, and whether the entry itself is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) gap: Option<Gap>,
    pub(crate) restart: bool,
}

/// A reader's place in a log.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    /// The last thing given, or the cursor.
    at: EventId,
    /// Nothing was given yet and nothing is owed: the first event is taken as it comes.
    fresh: bool,
    gap: Option<Gap>,
    restart: bool,
}

impl Replay {
    /// A reader that starts with whatever is held from `from` on.
    pub(crate) const fn fresh() -> Self {
        Self { at: EventId::new(0, 0), fresh: true, gap: None, restart: false }
    }

    /// A reader that has everything up to `cursor`.
    pub(crate) const fn after(cursor: EventId) -> Self {
        Self { at: cursor, fresh: false, gap: None, restart: false }
    }

    /// A reader whose cursor says nothing here: it is told so, then given all that is held.
    ///
    /// `cursor` is `None` where it could not be read: it is never echoed.
    pub(crate) const fn unknown(cursor: Option<EventId>) -> Self {
        let gap = Gap { after: cursor, resumes_at: None, missed: None };
        // What the reader has of another run is not to be taken for the beginning of this one.
        Self { gap: Some(gap), restart: cursor.is_some(), ..Self::fresh() }
    }

    /// The last thing given, or the cursor; `None` before either.
    pub(crate) fn at(&self) -> Option<EventId> {
        (self.at != EventId::new(0, 0)).then_some(self.at)
    }

    /// Looks at the log's next entry. `None`: not for this reader.
    pub(crate) fn step(&mut self, id: EventId, kind: &RecordKind) -> Option<Step> {
        if id <= self.at {
            return None;
        }
        match kind {
            RecordKind::Run { previous } => {
                self.enter_run(id, *previous);
                None
            }
            RecordKind::Event(_) => Some(self.event(id)),
            RecordKind::End(ended) => Some(self.end(ended)),
        }
    }

    /// Goes over to a run that the reader follows live from here on, whose log starts after `id`.
    pub(crate) fn hand_over(&mut self, id: EventId) -> Step {
        self.restart |= !self.fresh && self.at.epoch != id.epoch;
        self.at = id;
        self.told(EventId::new(id.epoch, 1))
    }

    /// Some events cannot be read at all, for whatever reason.
    pub(crate) fn unreadable(&mut self) {
        self.lose(None);
    }

    fn enter_run(&mut self, id: EventId, previous: Option<EventId>) {
        if !self.fresh {
            match previous {
                Some(previous) => self.owed_up_to(previous),
                // The store lost what was before this run, and with it the knowledge of how much that was.
                None => self.lose(None),
            }
            self.restart = true;
        }
        self.at = id;
    }

    fn event(&mut self, id: EventId) -> Step {
        if !self.fresh {
            if id.epoch == self.at.epoch {
                self.owed_up_to(EventId::new(id.epoch, id.seq - 1));
            } else {
                // The marker between the runs is gone, and with it the knowledge of what was before it.
                self.lose(None);
                self.restart = true;
            }
        }
        self.at = id;
        self.told(id)
    }

    fn end(&mut self, ended: &Ended) -> Step {
        if !self.fresh {
            self.owed_up_to(ended.last);
            // The run that ended may have said nothing else, and its marker may be trimmed.
            self.restart |= ended.last.epoch != self.at.epoch;
        }
        self.at = ended.id;
        self.told(ended.id)
    }

    /// Everything up to `last` was made: what lies between is missing.
    fn owed_up_to(&mut self, last: EventId) {
        if last <= self.at {
            return;
        }
        let missed = (last.epoch == self.at.epoch).then(|| last.seq - self.at.seq);
        self.lose(missed);
    }

    fn lose(&mut self, missed: Option<u64>) {
        self.gap = Some(match self.gap {
            None => Gap { after: self.at(), resumes_at: None, missed },
            Some(gap) => Gap { missed: gap.missed.zip(missed).map(|(a, b)| a.saturating_add(b)), ..gap },
        });
    }

    fn told(&mut self, next: EventId) -> Step {
        self.fresh = false;
        Step {
            gap: self.gap.take().map(|gap| Gap { resumes_at: Some(next), ..gap }),
            restart: std::mem::take(&mut self.restart),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::stream::{Ending, StreamState};

    fn run(epoch: u64, previous: Option<(u64, u64)>) -> (EventId, RecordKind) {
        let previous = previous.map(|(epoch, seq)| EventId::new(epoch, seq));
        (EventId::new(epoch, 0), RecordKind::Run { previous })
    }

    fn event(epoch: u64, seq: u64) -> (EventId, RecordKind) {
        (EventId::new(epoch, seq), RecordKind::Event(Bytes::new()))
    }

    fn end(epoch: u64, last: u64) -> (EventId, RecordKind) {
        let ending = Ending { state: StreamState::Completed, reason: None, event: None };
        let id = EventId::terminal(epoch);
        let last = EventId::new(epoch, last);
        (id, RecordKind::End(Box::new(Ended { ending, id, last, at: 0 })))
    }

    /// What a reader is told, as text: `-n` a gap of n, `-?` a gap of unknown size, `!` a restart.
    fn told(mut reader: Replay, log: &[(EventId, RecordKind)]) -> String {
        let mut out = Vec::new();
        for (id, kind) in log {
            let Some(step) = reader.step(*id, kind) else { continue };
            if let Some(gap) = step.gap {
                assert_eq!(gap.resumes_at, Some(*id));
                out.push(gap.missed.map_or("-?".to_owned(), |missed| format!("-{missed}")));
            }
            if step.restart {
                out.push("!".to_owned());
            }
            out.push(format!("{}-{}", id.epoch, id.seq));
        }
        out.join(" ")
    }

    fn after(epoch: u64, seq: u64) -> Replay {
        Replay::after(EventId::new(epoch, seq))
    }

    #[test]
    fn everything_after_the_cursor_once() {
        let log = [run(5, None), event(5, 1), event(5, 2), event(5, 3), end(5, 3)];
        assert_eq!(told(Replay::fresh(), &log), "5-1 5-2 5-3 6-0");
        assert_eq!(told(after(5, 2), &log), "5-3 6-0");
        assert_eq!(told(after(5, 3), &log), "6-0");
        assert_eq!(told(after(6, 0), &log), "");
    }

    #[test]
    fn what_was_trimmed_or_never_recorded_is_a_gap() {
        assert_eq!(told(after(5, 2), &[event(5, 6)]), "-3 5-6");
        assert_eq!(told(after(5, 2), &[event(5, 3), event(5, 9), end(5, 9)]), "5-3 -5 5-9 6-0");
        assert_eq!(told(Replay::fresh(), &[event(5, 6)]), "5-6", "nothing is owed without a cursor");
    }

    #[test]
    fn a_loss_at_the_very_end_is_a_gap() {
        assert_eq!(told(after(5, 2), &[event(5, 3), end(5, 7)]), "5-3 -4 6-0");
        assert_eq!(told(after(5, 9), &[end(5, 7)]), "6-0", "a buffered client may be ahead of the log");
        assert_eq!(told(after(4, 9), &[end(5, 7)]), "-? ! 6-0");
    }

    #[test]
    fn runs_are_divided_by_a_restart_and_their_losses_shown() {
        let log = [run(5, None), event(5, 1), run(9, Some((5, 3))), event(9, 1), end(9, 1)];
        assert_eq!(told(Replay::fresh(), &log), "5-1 -2 ! 9-1 10-0");
        assert_eq!(told(after(5, 3), &log), "! 9-1 10-0");
        assert_eq!(told(after(5, 4), &log), "! 9-1 10-0");
        assert_eq!(told(after(5, 1), &log[3..]), "-? ! 9-1 10-0", "the marker is trimmed");
        assert_eq!(told(after(5, 1), &[run(9, None), event(9, 1)]), "-? ! 9-1", "the store was emptied between");
        assert_eq!(told(after(5, 1), &[run(9, None), event(9, 4)]), "-? ! 9-4");
        let empty = [run(9, Some((5, 3))), run(12, Some((9, 0))), event(12, 1)];
        assert_eq!(told(after(5, 2), &empty), "-1 ! 12-1", "an empty run between");
        let only_an_end = [run(9, Some((5, 3))), end(9, 0)];
        assert_eq!(told(after(5, 3), &only_an_end), "! 10-0", "an end that is not the first run's");
    }

    #[test]
    fn a_cursor_that_says_nothing_here_gets_a_gap_and_all_that_is_held() {
        let log = [run(5, None), event(5, 1), run(9, Some((5, 1))), event(9, 1)];
        assert_eq!(told(Replay::unknown(None), &log), "-? 5-1 ! 9-1");
        assert_eq!(told(Replay::unknown(Some(EventId::new(4, 7))), &log), "-? ! 5-1 ! 9-1");
    }

    #[test]
    fn a_reader_goes_over_to_a_live_run() {
        let mut reader = after(5, 1);
        let (id, marker) = run(9, Some((5, 3)));
        assert_eq!(reader.step(id, &marker), None);
        let step = reader.hand_over(id);
        let gap = Gap { after: Some(EventId::new(5, 1)), resumes_at: Some(EventId::new(9, 1)), missed: Some(2) };
        assert_eq!(step, Step { gap: Some(gap), restart: true });
    }
}
