//! The total bytes of a run up to each of its events.

use std::collections::VecDeque;

/// The total bytes of a run at some of its events, which is exact enough to tell which events a log still holds.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    bytes: u64,
    /// Seqs with the total bytes up to and including them. A mark is set after each [`PARTS`]th part of the log's
    /// bytes.
    marks: VecDeque<(u64, u64)>,
}

/// The number of parts into which the marks divide a log.
const PARTS: u64 = 32;

impl Pushed {
    /// Adds the bytes of events up to the seq `last`.
    pub(super) fn add(&mut self, bytes: usize, last: u64, max_bytes: u64) {
        self.bytes += bytes as u64;
        if self.bytes - self.marks.back().map_or(0, |mark| mark.1) >= max_bytes / PARTS {
            self.marks.push_back((last, self.bytes));
            // Keeps one mark before the oldest part that the log holds, which marks where that part begins.
            while self.marks.get(1).is_some_and(|mark| self.bytes - mark.1 > max_bytes) {
                self.marks.pop_front();
            }
        }
    }

    /// Returns the seq of the first mark after which at most `max_bytes` were produced, counting `more` bytes to come;
    /// `last` if there is no such mark.
    pub(super) fn floor(&self, more: u64, max_bytes: u64, last: u64) -> u64 {
        let Some(beyond) = (self.bytes + more).checked_sub(max_bytes).filter(|beyond| *beyond > 0) else { return 0 };
        let index = self.marks.partition_point(|mark| mark.1 < beyond);
        self.marks.get(index).map_or(last, |mark| mark.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_BYTES: u64 = 3200;

    #[test]
    fn a_log_that_is_just_full_holds_every_event() {
        let mut pushed = Pushed::default();
        for seq in 1..=10 {
            pushed.add(300, seq, MAX_BYTES);
        }
        assert_eq!(pushed.floor(200, MAX_BYTES, 10), 0);
        assert_eq!(pushed.floor(201, MAX_BYTES, 10), 1);
        assert_eq!(pushed.floor(500, MAX_BYTES, 10), 1);
        assert_eq!(pushed.floor(501, MAX_BYTES, 10), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        /// The events after the floor fit in the log, and the floor is at most one part of the log higher than
        /// necessary.
        #[test]
        fn bytes_are_known_to_a_part_of_the_log(
            sizes in prop::collection::vec(1..400_usize, 0..200),
            more in 0..500_u64,
        ) {
            let mut pushed = Pushed::default();
            for (index, size) in sizes.iter().enumerate() {
                pushed.add(*size, index as u64 + 1, MAX_BYTES);
            }
            let last = sizes.len() as u64;
            let after = |seq: u64| sizes[seq as usize..].iter().map(|size| *size as u64).sum::<u64>() + more;
            let floor = pushed.floor(more, MAX_BYTES, last);
            prop_assert!(floor <= last);
            prop_assert!(floor == last || after(floor) <= MAX_BYTES, "{} bytes after {floor}", after(floor));
            let lowest = (0..=last).find(|seq| after(*seq) <= MAX_BYTES).unwrap_or(last);
            prop_assert!(floor == 0 || after(lowest) - after(floor) <= MAX_BYTES / PARTS + 400, "{lowest} to {floor}");
            prop_assert!(pushed.marks.len() <= 2 + PARTS as usize);
        }
    }
}
