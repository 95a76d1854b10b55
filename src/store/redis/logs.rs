//! The positions of the logs that this process writes: what a plain `XADD` needs to know, and where to cut.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::model::stream::Frame;

/// Into how many parts the marks divide a full log. There are at most about four times as many marks.
const PARTS: u64 = 32;
/// A log is cut to a sixteenth below its limits, so that not every later batch must cut it again.
const SLACK: u64 = 16;

/// Events and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

impl Amount {
    pub(super) const fn new(events: u64, bytes: u64) -> Self {
        Self { events, bytes }
    }

    pub(super) fn plus(self, events: &Frame) -> Self {
        Self { events: self.events + events.count, bytes: self.bytes + events.bytes.len() as u64 }
    }

    fn minus(self, other: Self) -> Self {
        Self { events: self.events.saturating_sub(other.events), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    const fn fits(self, max: Self) -> bool {
        self.events <= max.events && self.bytes <= max.bytes
    }
}

/// The beginning of an entry: the seq of its first event, and how much the log had taken in before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) seq: u64,
    pub(super) before: Amount,
}

/// How to bring a log down to its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Remove everything before this.
    At(Mark),
    /// Another process wrote the entry at which to cut. Search for it, until the log holds no more than this.
    Search(Amount),
}

/// The state of a log, as far as this process has written it.
#[derive(Clone, Debug)]
pub(super) struct Position {
    pub(super) epoch: u64,
    /// The newest seq that this process has written. A batch that begins below it must be compared.
    pub(super) last: u64,
    /// The amount that the log has taken in, trimmed entries included.
    pub(super) taken: Amount,
    /// The amount that it had taken in before its oldest entry, as far as is known.
    dropped: Amount,
    /// The limits of the log.
    max: Amount,
    /// When the last entry was written, by the server's clock. Times in a log never go back.
    at: u64,
    /// When this was last used. If nobody ends the stream here, it is forgotten after a while.
    used: Instant,
    /// Whether entries before the oldest mark were written elsewhere.
    taken_over: bool,
    /// The beginnings of some entries, the oldest first, at most a small part of the log apart. Empty until the log is large.
    marks: VecDeque<Mark>,
    /// The beginning of the newest entry.
    newest: Mark,
}

/// Positions by the names of their streams.
#[derive(Default)]
pub(super) struct Positions {
    held: HashMap<String, Position>,
    tidied: Option<Instant>,
}

impl std::ops::Deref for Positions {
    type Target = HashMap<String, Position>;

    fn deref(&self) -> &Self::Target {
        &self.held
    }
}

impl std::ops::DerefMut for Positions {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.held
    }
}

/// A position that is unused for this long is forgotten, and read from the store again when it is needed.
const KEPT: std::time::Duration = std::time::Duration::from_secs(600);

impl Positions {
    /// Drops the positions that are no longer used, now and then.
    pub(super) fn tidy(&mut self) {
        let now = Instant::now();
        if self.tidied.is_none_or(|at| now - at >= KEPT / 10) {
            self.tidied = Some(now);
            self.held.retain(|_, position| now - position.used < KEPT);
        }
    }
}

impl Position {
    pub(super) fn new(epoch: u64, last: u64, taken: Amount, max: Amount, at: u64) -> Self {
        // A marker counts as an event. So this log holds only the marker of this run, and nothing of it is unknown.
        let is_new = taken == Amount::new(1, 0);
        let (seq, before) = if is_new { (0, Amount::default()) } else { (last.saturating_add(1), taken) };
        Self {
            epoch,
            last,
            taken,
            dropped: Amount::default(),
            max,
            at,
            used: Instant::now(),
            taken_over: !is_new,
            marks: VecDeque::new(),
            newest: Mark { seq, before },
        }
    }

    /// The time to store with an entry that is written now.
    pub(super) fn at(&mut self, now: u64) -> u64 {
        self.at = self.at.max(now);
        self.used = Instant::now();
        self.at
    }

    /// Notes an entry that begins at `mark`, and that the log has taken in `taken` with it.
    pub(super) fn wrote(&mut self, mark: Mark, last: u64, taken: Amount) {
        let part = Amount::new(self.max.events / PARTS, self.max.bytes / PARTS);
        let kept = self.marks.back().map_or(self.dropped, |mark| mark.before);
        // The previous newest entry ends where this one begins.
        if !mark.before.minus(kept).fits(part) && self.newest.before != kept {
            self.marks.push_back(self.newest);
        }
        (self.newest, self.last, self.taken) = (mark, self.last.max(last), taken);
    }

    /// Notes that everything before `dropped` is gone. Returns whether that is more than before.
    pub(super) fn dropped(&mut self, dropped: Amount) -> bool {
        let is_news = dropped.events > self.dropped.events;
        self.dropped = dropped;
        while self.marks.front().is_some_and(|mark| mark.before.events < dropped.events) {
            self.marks.pop_front();
            self.taken_over = false;
        }
        self.taken_over &= self.marks.front().unwrap_or(&self.newest).before.events > dropped.events;
        is_news
    }

    /// Where to cut the log, if it holds too much once it has taken in `taken`, the newest entry being `newest`.
    ///
    /// It cuts up to a sixteenth too much, so that not every later batch must cut.
    pub(super) fn cut(&self, newest: Mark, taken: Amount) -> Option<Cut> {
        self.cut_by(SLACK, newest, taken)
    }

    /// Where to cut the log as it is now, after a batch of `batch` events. If batches are larger than a sixteenth of the log, each
    /// of them must cut anyway, so nothing is cut in advance.
    pub(super) fn overdue_cut(&self, batch: u64) -> Option<Cut> {
        let share = if batch < self.max.events / SLACK { SLACK } else { u64::MAX };
        self.cut_by(share, self.newest, self.taken)
    }

    fn cut_by(&self, share: u64, newest: Mark, taken: Amount) -> Option<Cut> {
        let held = taken.minus(self.dropped);
        if held.fits(self.max) {
            return None;
        }
        let mut marks: Vec<Mark> = self.marks.iter().chain([&self.newest]).copied().collect();
        if newest != self.newest {
            marks.push(newest);
        }
        let left = |mark: &Mark| taken.minus(mark.before);
        // The amount to leave, for events and bytes separately: less than the limit if the limit is exceeded.
        let goal = |max: u64, held: u64| if held > max { max - max / share } else { max };
        let goal = Amount::new(goal(self.max.events, held.events), goal(self.max.bytes, held.bytes));
        let leaves_enough = |mark: &Mark| {
            let left = left(mark);
            (held.events <= self.max.events || left.events >= goal.events)
                && (held.bytes <= self.max.bytes || left.bytes >= goal.bytes)
        };
        let first = marks.iter().position(|mark| left(mark).fits(self.max)).unwrap_or(marks.len() - 1);
        let best = marks.iter().rposition(leaves_enough).unwrap_or(0).max(first);
        let mark = marks[best];
        if best == 0 && self.taken_over && !leaves_enough(&mark) && left(&mark).fits(self.max) {
            return Some(Cut::Search(goal));
        }
        // The newest entry stays, however large.
        (mark.before.events > self.dropped.events).then_some(Cut::At(mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(max_events: u64, max_bytes: u64) -> Position {
        Position::new(1, 0, Amount::new(1, 0), Amount::new(max_events, max_bytes), 0)
    }

    /// Writes an entry as the hot path does. Returns what was to be done about the log's limits.
    fn write(position: &mut Position, events: u64, bytes: u64) -> Option<Cut> {
        let mark = Mark { seq: position.last + 1, before: position.taken };
        let taken = Amount::new(mark.before.events + events, mark.before.bytes + bytes);
        let cut = position.cut(mark, taken);
        position.wrote(mark, position.last + events, taken);
        if let Some(Cut::At(mark)) = cut {
            position.dropped(mark.before);
        }
        cut
    }

    /// Of every mixture of entries a log holds at most what it may, and at least that less an eighth, the newest aside.
    #[test]
    fn a_cut_leaves_no_more_than_the_limits_and_hardly_less() {
        for (max_events, max_bytes) in [(10_000, 8 << 20), (10, 1 << 20), (32, 1000), (1000, 64 << 10), (1, 1)] {
            for seed in 1..40_u64 {
                let mut state = seed;
                let mut next = |below: u64| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) % below
                };
                let mut position = new(max_events, max_bytes);
                let entry = Amount::new((max_events / 16).clamp(1, 64), (max_bytes / 16).max(1));
                for _ in 0..5_000 {
                    write(&mut position, 1 + next(entry.events), 1 + next(1 + entry.bytes));
                    let held = position.taken.minus(position.dropped);
                    assert!(held.fits(position.max) || position.dropped == position.newest.before, "{held:?}");
                    assert!(position.marks.len() <= 130, "{} marks", position.marks.len());
                    let full = |held, max: u64, entry| held + max / 8 + 2 * entry >= max;
                    let is_full =
                        full(held.events, max_events, entry.events) || full(held.bytes, max_bytes, entry.bytes);
                    assert!(is_full || position.dropped == Amount::default(), "{held:?} of {:?}", position.max);
                }
            }
        }
    }

    #[test]
    fn events_of_one_size_are_cut_by_a_sixteenth() {
        let mut position = new(1600, u64::MAX);
        for _ in 0..10_000 {
            write(&mut position, 1, 10);
            let held = position.taken.minus(position.dropped).events;
            assert!(held <= 1600 && (position.dropped.events == 0 || held >= 1500), "{held}");
        }
    }

    #[test]
    fn an_idle_log_has_no_marks() {
        let mut position = new(10_000, 8 << 20);
        (0..10).for_each(|_| assert_eq!(write(&mut position, 20, 10_000), None));
        assert_eq!(position.marks.capacity(), 0);
    }

    #[test]
    fn what_was_written_elsewhere_is_looked_for_until_the_own_part_is_enough() {
        let mut position = Position::new(9, 0, Amount::new(5000, 50_000), Amount::new(100, u64::MAX), 0);
        assert_eq!(write(&mut position, 1, 10), Some(Cut::Search(Amount::new(94, u64::MAX))));
        // It holds less than was feared.
        position.dropped(Amount::new(4950, 49_500));
        for seq in 2..=50 {
            assert_eq!(write(&mut position, 1, 10), None, "{seq}");
        }
        assert_eq!(write(&mut position, 1, 10), Some(Cut::Search(Amount::new(94, u64::MAX))));
        // What was not found yet goes at the latest where the own part is as much as the log may hold.
        let cuts: Vec<_> = (0..60).filter_map(|_| write(&mut position, 1, 10)).collect();
        let at = Mark { seq: 1, before: Amount::new(5000, 50_000) };
        assert!(cuts.contains(&Cut::At(at)) && position.taken.minus(position.dropped).events <= 100, "{cuts:?}");
        assert!(!position.taken_over);
    }
}
