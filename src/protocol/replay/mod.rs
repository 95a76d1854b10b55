//! Delivers a log exactly from the cursor on, and reports what is missing as a gap (guarantee G1).
//!
//! The ids of a run have no holes. The entry that starts a run names the last event of the previous run, and the end of
//! the log names the last event of the last run. So events that are missing anywhere can be detected.

mod missing;
#[cfg(test)]
mod tests;

pub(crate) use missing::Missing;

use crate::model::{
    id::EventId,
    stream::{Ended, Record, RecordKind},
};

/// A gap: events that a reader cannot receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The last event that the reader has; `None` if it is not known to be an event of this stream.
    pub(crate) after: Option<EventId>,
    /// The next event; `None` if it is not known yet.
    pub(crate) resumes_at: Option<EventId>,
    /// The number of missing events; `None` if it is not known.
    pub(crate) missed: Option<u64>,
    /// Whether the gap only reports that the cursor was not one of this stream. All events held follow, and none is
    /// known to be missing, so a voice without a message for gaps continues the body.
    pub(crate) of_nothing_known: bool,
}

impl Gap {
    /// Whether the gap lies between the run that the reader has seen and the next one.
    pub(crate) fn crosses_runs(&self) -> bool {
        // The id of an end has the epoch after its run's, and seq 0.
        let run = |id: EventId| if id.seq == 0 { id.epoch.saturating_sub(1) } else { id.epoch };
        self.after.zip(self.resumes_at).is_some_and(|(after, next)| after.epoch != run(next))
    }
}

/// The notices to deliver before an entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) gap: Option<Gap>,
    pub(crate) restart: bool,
    /// The number of events at the start of the entry that the reader already has.
    pub(crate) skipped: u64,
}

/// The events owed to a reader without a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// No earlier events: the reader of a feed, or one that asked for new events only.
    Nothing,
    /// Every event, from the first one on, of the run that it reads: the newest, or the first one held where it reads from the
    /// log's start.
    Run,
    /// Every event of every run.
    Stream,
}

/// The position before every entry of every log.
const START: EventId = EventId::new(0, 0);

/// A reader's position in a log.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    /// How far the log was read: the last entry delivered, the cursor, or the start of the current run.
    at: EventId,
    /// The last event or end delivered, or the cursor.
    given: Option<EventId>,
    /// The events owed to a reader without a cursor; `None` once the first one is delivered.
    fresh: Option<Owed>,
    /// The gap to report before the next event.
    gap: Option<Gap>,
    /// Whether to report a restart before the next event.
    restart: bool,
}

impl Replay {
    /// Creates the position of a reader without a cursor, which starts with the first event held.
    pub(crate) const fn fresh(owed: Owed) -> Self {
        Self { at: START, given: None, fresh: Some(owed), gap: None, restart: false }
    }

    /// Creates the position of a reader that has every event up to `cursor`.
    pub(crate) const fn after(cursor: EventId) -> Self {
        Self { at: cursor, given: Some(cursor), fresh: None, gap: None, restart: false }
    }

    /// Creates the position of a reader whose cursor is not of this stream: it gets a gap, then every event held.
    ///
    /// `cursor` is `None` if it could not be read; such a cursor is never echoed. `owed` is what a reader without a
    /// cursor is owed, because this reader has no event of the log either.
    pub(crate) const fn unknown(cursor: Option<EventId>, owed: Owed) -> Self {
        let gap = Gap { after: cursor, resumes_at: None, missed: None, of_nothing_known: cursor.is_none() };
        // A restart keeps the client from treating the events it has, of another run, as the beginning of this one.
        Self { given: cursor, gap: Some(gap), restart: cursor.is_some(), ..Self::fresh(owed) }
    }

    /// Returns the position of the same reader after the store lost the log and the stream was registered again.
    pub(crate) const fn forgotten(&self) -> Self {
        let owed = match self.fresh {
            Some(owed) => owed,
            None => Owed::Nothing,
        };
        Self::unknown(self.given, owed)
    }

    /// Whether the reader has the end of the stream. Only terminal events have ids with seq 0.
    pub(crate) fn has_end(&self) -> bool {
        self.given.is_some_and(|given| given.seq == 0)
    }

    /// Whether the reader has the end of the run `epoch`.
    pub(crate) fn has_end_of(&self, epoch: u64) -> bool {
        self.given == Some(EventId::terminal(epoch))
    }

    /// Returns how far the log was read; `None` if nothing was read and the reader has no cursor.
    pub(crate) fn at(&self) -> Option<EventId> {
        (self.at != START).then_some(self.at)
    }

    /// Takes the next entry of the log. Returns the notices to deliver before it; `None` if the entry is not for this
    /// reader.
    pub(crate) fn step(&mut self, record: &Record) -> Option<Step> {
        if record.id <= self.at {
            return None;
        }
        match &record.kind {
            RecordKind::Run { previous } => {
                self.enter_run(record.id, *previous);
                None
            }
            RecordKind::Events(_) => Some(self.events(record.first(), record.id)),
            RecordKind::End(ended) => Some(self.end(ended)),
        }
    }

    /// Moves to a run that the reader follows live from now on. `id` is the position before its first event.
    pub(crate) fn hand_over(&mut self, id: EventId) -> Step {
        self.restart |= self.fresh.is_none() && self.at.epoch != id.epoch;
        self.at = id;
        self.notices_before(EventId::new(id.epoch, 1))
    }

    /// Notes that the events before the next run cannot be read.
    ///
    /// If the reader has no event and already gets a gap because its cursor was unknown, that gap stays as it is: the
    /// reader receives the next run whole.
    pub(crate) fn unreadable(&mut self) {
        if self.given.is_some() || self.gap.is_none() {
            self.lose(None);
        }
    }

    fn end_at(&mut self, top: EventId) {
        if self.fresh == Some(Owed::Run) && self.at == START {
            self.at = EventId::new(top.epoch, 0);
        }
        if top.epoch == self.at.epoch {
            self.owed_up_to(top);
            self.at = self.at.max(top);
        }
    }

    fn enter_run(&mut self, id: EventId, previous: Option<EventId>) {
        let first = self.fresh.is_some() && self.at == START;
        match (self.fresh, previous) {
            (Some(Owed::Nothing), _) => {}
            // This is the first entry of the log, and events before it belong to another run.
            (Some(Owed::Run), _) | (Some(Owed::Stream), None) if first => {}
            (_, Some(previous)) => self.owed_up_to(previous),
            // The store lost the runs before this one, so the number of their events is not known.
            (_, None) => self.lose(None),
        }
        self.restart |= self.fresh.is_none();
        self.at = id;
    }

    /// Takes events of one run, from `first` to `last`. The reader may already have some of them.
    fn events(&mut self, first: EventId, last: EventId) -> Step {
        self.enter(last.epoch);
        if self.fresh != Some(Owed::Nothing) {
            self.owed_up_to(EventId::new(first.epoch, first.seq.saturating_sub(1)));
        }
        let skipped = if self.at.epoch == last.epoch { (self.at.seq + 1).saturating_sub(first.seq) } else { 0 };
        self.at = last;
        Step { skipped, ..self.notices_before(EventId::new(first.epoch, first.seq + skipped)) }
    }

    fn end(&mut self, ended: &Ended) -> Step {
        if self.fresh != Some(Owed::Nothing) {
            if self.fresh.is_some() {
                self.enter(ended.last.epoch);
            }
            self.owed_up_to(ended.last);
        }
        // The run that ended may have no events, and the entry that starts it may be trimmed. So the end itself may be
        // the first sign of the run.
        self.restart |= self.fresh.is_none() && ended.last.epoch != self.at.epoch;
        self.at = ended.id;
        self.notices_before(ended.id)
    }

    /// Moves to the run of the next entry. The entry that starts the run may have been trimmed.
    fn enter(&mut self, epoch: u64) {
        if epoch == self.at.epoch {
            return;
        }
        match self.fresh {
            Some(Owed::Nothing) => return,
            // Nothing was read so far: only the beginning of this run can be missing, and its ids tell how much.
            Some(Owed::Run) if self.at == START => {}
            // The entry that starts this run is gone, so the number of missing events before it is not known.
            _ => self.lose(None),
        }
        self.restart |= self.fresh.is_none();
        self.at = EventId::new(epoch, 0);
    }

    /// Notes that events up to `last` were produced: those after the reader's position are missing.
    fn owed_up_to(&mut self, last: EventId) {
        if last <= self.at {
            return;
        }
        let missed = (last.epoch == self.at.epoch).then(|| last.seq - self.at.seq);
        self.lose(missed);
    }

    fn lose(&mut self, missed: Option<u64>) {
        self.gap = Some(match self.gap {
            None => Gap { after: self.given, resumes_at: None, missed, of_nothing_known: false },
            Some(gap) => {
                let missed = gap.missed.zip(missed).map(|(a, b)| a.saturating_add(b));
                Gap { missed, of_nothing_known: false, ..gap }
            }
        });
    }

    fn notices_before(&mut self, next: EventId) -> Step {
        self.fresh = None;
        self.given = Some(self.at);
        Step {
            gap: self.gap.take().map(|gap| Gap { resumes_at: Some(next), ..gap }),
            restart: std::mem::take(&mut self.restart),
            skipped: 0,
        }
    }
}
