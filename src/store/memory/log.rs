//! A stream's log in memory: bounded, dense within a run, trimmed from the front.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    id::EventId,
    stream::{Record, RecordKind},
};

#[derive(Debug, Default)]
pub(super) struct Log {
    records: VecDeque<Record>,
    /// The runs whose start markers are held, in order. A marker may stand for several runs, from the first epoch to the
    /// last: all but the last made nothing.
    runs: VecDeque<(u64, u64)>,
    bytes: usize,
    /// The highest id that is held no more.
    trimmed: Option<EventId>,
    top: EventId,
}

impl Log {
    /// A log that has lost everything up to `acknowledged`.
    pub(super) fn resumed_after(acknowledged: EventId) -> Self {
        Self { trimmed: Some(acknowledged), top: acknowledged, ..Self::default() }
    }

    /// Everything up to here was made, and is lost where it is not held.
    pub(super) fn lose_up_to(&mut self, id: EventId) {
        self.top = self.top.max(id);
    }

    pub(super) fn top(&self) -> EventId {
        self.top
    }

    /// Writes the marker of a new run, which makes known all epochs from `since` on. A run before it that made nothing leaves
    /// none: a stream that is only ever opened does not grow, and keeps its events.
    pub(super) fn push_run(&mut self, epoch: u64, mut since: u64, mut previous: Option<EventId>, at: u64) {
        if let Some(Record { id, kind: RecordKind::Run { previous: before }, .. }) = self.records.back()
            && previous == Some(*id)
        {
            previous = *before;
            self.records.pop_back();
            since = self.runs.pop_back().map_or(since, |(since, _)| since);
        }
        self.runs.push_back((since, epoch));
        self.push(Record { id: EventId::new(epoch, 0), at, kind: RecordKind::Run { previous } });
    }

    pub(super) fn push_event(&mut self, id: EventId, block: Bytes, at: u64) {
        self.bytes += block.len();
        self.push(Record { id, at, kind: RecordKind::Event(block) });
    }

    fn push(&mut self, record: Record) {
        self.top = self.top.max(record.id);
        self.records.push_back(record);
    }

    /// Drops the oldest entries until at most so many entries and bytes are held. A marker is an entry like an event.
    pub(super) fn trim(&mut self, max_entries: usize, max_bytes: usize) {
        while self.records.len() > max_entries || self.bytes > max_bytes {
            let Some(record) = self.records.pop_front() else { return };
            self.trimmed = Some(record.id);
            match record.kind {
                RecordKind::Event(block) => self.bytes -= block.len(),
                RecordKind::Run { .. } => {
                    self.runs.pop_front();
                }
                RecordKind::End(_) => {}
            }
        }
    }

    /// Whether there ever was such a run, as far as can be known. O(log runs held).
    pub(super) fn knows(&self, epoch: u64) -> bool {
        let next = self.runs.partition_point(|(_, last)| *last < epoch);
        self.runs.get(next).is_some_and(|(first, _)| *first <= epoch)
            || self.trimmed.is_some_and(|trimmed| epoch <= trimmed.epoch)
    }

    /// The entries after `id`, oldest first.
    pub(super) fn after(&self, id: EventId) -> impl Iterator<Item = &Record> {
        let start = self.records.partition_point(|record| record.id <= id);
        self.records.range(start..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(log: &Log, after: EventId) -> Vec<String> {
        log.after(after).map(|record| format!("{}-{}", record.id.epoch, record.id.seq)).collect()
    }

    #[test]
    fn trimming_drops_the_oldest_and_remembers_it() {
        let mut log = Log::default();
        log.push_run(5, 5, None, 0);
        for seq in 1..=4 {
            log.push_event(EventId::new(5, seq), Bytes::from_static(b"data: x\n"), 0);
        }
        assert_eq!(ids(&log, EventId::new(5, 2)), ["5-3", "5-4"]);
        assert!(log.knows(5) && !log.knows(4) && !log.knows(6));
        log.trim(4, usize::MAX);
        assert_eq!(ids(&log, EventId::default()), ["5-1", "5-2", "5-3", "5-4"]);
        log.trim(3, usize::MAX);
        assert_eq!(ids(&log, EventId::default()), ["5-2", "5-3", "5-4"]);
        assert!(log.knows(5) && log.knows(4));
        log.trim(usize::MAX, 16);
        assert_eq!(ids(&log, EventId::default()), ["5-3", "5-4"]);
        assert_eq!(log.top(), EventId::new(5, 4));
    }
    #[test]
    fn runs_that_make_nothing_leave_one_marker() {
        let mut log = Log::default();
        log.push_run(5, 5, None, 0);
        log.push_event(EventId::new(5, 1), Bytes::from_static(b"data: x\n"), 0);
        let mut previous = EventId::new(5, 3);
        for epoch in (10..10_000).step_by(2) {
            log.push_run(epoch, epoch, Some(previous), 0);
            previous = EventId::new(epoch, 0);
        }
        assert_eq!(ids(&log, EventId::default()), ["5-0", "5-1", "9998-0"]);
        let last = log.after(EventId::new(5, 1)).next().map(|record| record.kind.clone());
        assert_eq!(last, Some(RecordKind::Run { previous: Some(EventId::new(5, 3)) }), "what they came after");
        assert!(log.knows(5) && log.knows(10) && log.knows(5000) && log.knows(9998));
        assert!(!log.knows(4) && !log.knows(6) && !log.knows(9) && !log.knows(9999));
        // One that made something, recorded or not, is one that readers may have to be told of.
        log.push_run(20_000, 20_000, Some(EventId::new(9998, 1)), 0);
        assert_eq!(ids(&log, EventId::new(5, 1)), ["9998-0", "20000-0"]);
    }

    #[test]
    fn g6_markers_count_against_the_bound() {
        let mut log = Log::default();
        log.push_run(5, 5, None, 0);
        for epoch in 6..1000 {
            log.push_run(epoch, epoch, Some(EventId::new(epoch - 1, 1)), 0);
            log.trim(10, usize::MAX);
        }
        assert_eq!((log.records.len(), log.runs.len()), (10, 10));
        assert!(log.knows(7) && log.knows(995) && !log.knows(1000));
    }
}
