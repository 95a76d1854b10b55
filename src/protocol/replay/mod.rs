//! Exactly after the cursor, or an explicit gap (guarantee G1): what a reader of a log is owed.
//!
//! A log is dense within a run, says at the start of each run where the one before ended, and at its
//! end where the last one ended. So whatever is missing shows, wherever it is missing.

mod missing;
#[cfg(test)]
mod tests;

pub(crate) use missing::Missing;

use crate::model::{
    id::EventId,
    stream::{Ended, Record, RecordKind},
};

/// Events that a reader cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The last event that the reader has, where it is known to be this stream's.
    pub(crate) after: Option<EventId>,
    /// The next event; `None` where that is not known yet.
    pub(crate) resumes_at: Option<EventId>,
    /// How many are missing, where that is known.
    pub(crate) missed: Option<u64>,
    /// Whether it only says that the cursor was no cursor of this stream: all that is held follows, and nothing is known to
    /// be missing. A voice without a word for a gap goes on then.
    pub(crate) of_nothing_known: bool,
}

impl Gap {
    /// Whether what is missing lies between the run that the reader has seen and the one that comes next.
    pub(crate) fn crosses_runs(&self) -> bool {
        // An end has the epoch after its run's, and seq 0.
        let run = |id: EventId| if id.seq == 0 { id.epoch.saturating_sub(1) } else { id.epoch };
        self.after.zip(self.resumes_at).is_some_and(|(after, next)| after.epoch != run(next))
    }
}

/// The notices to give before an entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) gap: Option<Gap>,
    pub(crate) restart: bool,
    /// How many of the entry's first events the reader has already.
    pub(crate) skipped: u64,
}

/// The events owed to a reader without a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// Nothing before the first event that it is given: a feed's reader, or one that wants only what comes from now on.
    Nothing,
    /// Every event of the run that it reads, from the first one on.
    Run,
    /// Every event of every run.
    Stream,
}

/// Before every entry of every log.
const START: EventId = EventId::new(0, 0);

/// A reader's place in a log.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    /// How far the log was read: the last thing given, the cursor, or the start of the run that is read.
    at: EventId,
    /// The last thing given, or the cursor.
    given: Option<EventId>,
    /// Until something was given to a reader without a cursor: what that is owed.
    fresh: Option<Owed>,
    gap: Option<Gap>,
    restart: bool,
}

impl Replay {
    /// A reader without a cursor, which starts with the first event held.
    pub(crate) const fn fresh(owed: Owed) -> Self {
        Self { at: START, given: None, fresh: Some(owed), gap: None, restart: false }
    }

    /// A reader that has everything up to `cursor`.
    pub(crate) const fn after(cursor: EventId) -> Self {
        Self { at: cursor, given: Some(cursor), fresh: None, gap: None, restart: false }
    }

    /// A reader whose cursor is not of this stream: it gets a `gap`, then everything held.
    ///
    /// `cursor` is `None` where it could not be read: it is never echoed. `owed` is what a reader without a cursor is owed: this
    /// one has nothing of the log either.
    pub(crate) const fn unknown(cursor: Option<EventId>, owed: Owed) -> Self {
        let gap = Gap { after: cursor, resumes_at: None, missed: None, of_nothing_known: cursor.is_none() };
        // Told as a restart, so that the client does not take events of another run for the beginning of this one.
        Self { given: cursor, gap: Some(gap), restart: cursor.is_some(), ..Self::fresh(owed) }
    }

    /// The same reader in a log that does not know where it stands: the store lost what it had, and began anew.
    pub(crate) const fn forgotten(&self) -> Self {
        let owed = match self.fresh {
            Some(owed) => owed,
            None => Owed::Nothing,
        };
        Self::unknown(self.given, owed)
    }

    /// Whether the reader has the end of a stream: the id of a terminal event has seq 0.
    pub(crate) fn has_end(&self) -> bool {
        self.given.is_some_and(|given| given.seq == 0)
    }

    /// Whether the reader has the end of this run.
    pub(crate) fn has_end_of(&self, epoch: u64) -> bool {
        self.given == Some(EventId::terminal(epoch))
    }

    /// How far the log was read; `None` where nothing of it was, and there is no cursor.
    pub(crate) fn at(&self) -> Option<EventId> {
        (self.at != START).then_some(self.at)
    }

    /// Looks at the log's next entry. `None`: not for this reader.
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

    /// Goes over to a run that the reader follows live from here on, whose log starts after `id`.
    pub(crate) fn hand_over(&mut self, id: EventId) -> Step {
        self.restart |= self.fresh.is_none() && self.at.epoch != id.epoch;
        self.at = id;
        self.told(EventId::new(id.epoch, 1))
    }

    /// Notes that the events before the next run cannot be read at all. A reader that has none of them is not told of that run as of
    /// a truncated one: it gets that whole.
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
            // The log's first entry. Events before it are another run's.
            (Some(Owed::Run), _) | (Some(Owed::Stream), None) if first => {}
            (Some(Owed::Stream), Some(_)) if first => self.lose(None),
            (_, Some(previous)) => self.owed_up_to(previous),
            // The store lost the runs before this one, and with them the number of their events.
            (_, None) => self.lose(None),
        }
        self.restart |= self.fresh.is_none();
        self.at = id;
    }

    /// Events of one run, from the first to the last; the reader may have some of them.
    fn events(&mut self, first: EventId, last: EventId) -> Step {
        self.enter(last.epoch);
        if self.fresh != Some(Owed::Nothing) {
            self.owed_up_to(EventId::new(first.epoch, first.seq.saturating_sub(1)));
        }
        let skipped = if self.at.epoch == last.epoch { (self.at.seq + 1).saturating_sub(first.seq) } else { 0 };
        self.at = last;
        Step { skipped, ..self.told(EventId::new(first.epoch, first.seq + skipped)) }
    }

    fn end(&mut self, ended: &Ended) -> Step {
        if self.fresh != Some(Owed::Nothing) {
            if self.fresh.is_some() {
                self.enter(ended.last.epoch);
            }
            self.owed_up_to(ended.last);
        }
        // The run that ended may have said nothing else, and its marker may be trimmed.
        self.restart |= self.fresh.is_none() && ended.last.epoch != self.at.epoch;
        self.at = ended.id;
        self.told(ended.id)
    }

    /// Something of a run comes, whose marker may be gone.
    fn enter(&mut self, epoch: u64) {
        if epoch == self.at.epoch {
            return;
        }
        match self.fresh {
            Some(Owed::Nothing) => return,
            // Up to here nothing was read: the run's beginning is what is missed.
            Some(Owed::Run) if self.at == START => {}
            // The marker between the runs is gone, and with it the number of events before it.
            _ => self.lose(None),
        }
        self.restart |= self.fresh.is_none();
        self.at = EventId::new(epoch, 0);
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
            None => Gap { after: self.given, resumes_at: None, missed, of_nothing_known: false },
            Some(gap) => {
                let missed = gap.missed.zip(missed).map(|(a, b)| a.saturating_add(b));
                Gap { missed, of_nothing_known: false, ..gap }
            }
        });
    }

    fn told(&mut self, next: EventId) -> Step {
        self.fresh = None;
        self.given = Some(self.at);
        Step {
            gap: self.gap.take().map(|gap| Gap { resumes_at: Some(next), ..gap }),
            restart: std::mem::take(&mut self.restart),
            skipped: 0,
        }
    }
}
