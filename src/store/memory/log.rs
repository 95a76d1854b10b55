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
    /// The epochs whose start markers are held.
    runs: VecDeque<u64>,
    events: usize,
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

    pub(super) fn top(&self) -> EventId {
        self.top
    }

    pub(super) fn push_run(&mut self, epoch: u64, previous: Option<EventId>, at: u64) {
        self.runs.push_back(epoch);
        self.push(Record { id: EventId::new(epoch, 0), at, kind: RecordKind::Run { previous } });
    }

    pub(super) fn push_event(&mut self, id: EventId, block: Bytes, at: u64) {
        self.events += 1;
        self.bytes += block.len();
        self.push(Record { id, at, kind: RecordKind::Event(block) });
    }

    fn push(&mut self, record: Record) {
        self.top = self.top.max(record.id);
        self.records.push_back(record);
    }

    /// Drops the oldest entries until at most so many events and bytes are held.
    pub(super) fn trim(&mut self, max_events: usize, max_bytes: usize) {
        while self.events > max_events || self.bytes > max_bytes {
            let Some(record) = self.records.pop_front() else { return };
            self.trimmed = Some(record.id);
            match record.kind {
                RecordKind::Event(block) => {
                    self.events -= 1;
                    self.bytes -= block.len();
                }
                RecordKind::Run { .. } => {
                    self.runs.pop_front();
                }
                RecordKind::End(_) => {}
            }
        }
    }

    /// Whether there ever was such a run, as far as can be known.
    pub(super) fn knows(&self, epoch: u64) -> bool {
        self.runs.contains(&epoch) || self.trimmed.is_some_and(|trimmed| epoch <= trimmed.epoch)
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
        log.push_run(5, None, 0);
        for seq in 1..=4 {
            log.push_event(EventId::new(5, seq), Bytes::from_static(b"data: x\n"), 0);
        }
        assert_eq!(ids(&log, EventId::new(5, 2)), ["5-3", "5-4"]);
        assert!(log.knows(5) && !log.knows(4) && !log.knows(6));
        log.trim(3, usize::MAX);
        assert_eq!(ids(&log, EventId::default()), ["5-2", "5-3", "5-4"]);
        assert!(log.knows(5) && log.knows(4));
        log.trim(usize::MAX, 16);
        assert_eq!(ids(&log, EventId::default()), ["5-3", "5-4"]);
        assert_eq!(log.top(), EventId::new(5, 4));
    }
}
