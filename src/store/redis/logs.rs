//! How far the logs are that this process writes: what a plain `XADD` must say without asking.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::time::Instant;

/// How far a log is, as this process left it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) epoch: u64,
    /// The newest seq that was written from here: what begins below it has to be compared.
    pub(super) last: u64,
    /// Events and bytes that the log has taken in, and up to where these were dropped again.
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) dropped_events: u64,
    pub(super) dropped_bytes: u64,
    /// How many it holds.
    pub(super) max_events: u64,
    pub(super) max_bytes: u64,
    /// When the last entry was written, by the store's clock: time does not go back in a log.
    pub(super) at: u64,
    /// When it was last used here: what nobody ends here is forgotten some time.
    pub(super) used: Instant,
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

/// A position that is not used for so long is read from the store again.
const KEPT: std::time::Duration = std::time::Duration::from_secs(600);

impl Positions {
    /// Drops now and then what was left behind by producers that did not end here.
    pub(super) fn tidy(&mut self) {
        let now = Instant::now();
        if self.tidied.is_none_or(|at| now - at >= KEPT / 10) {
            self.tidied = Some(now);
            self.held.retain(|_, position| now - position.used < KEPT);
        }
    }
}

impl Position {
    pub(super) fn new(
        epoch: u64,
        last: u64,
        (events, bytes): (u64, u64),
        (max_events, max_bytes): (u64, u64),
        at: u64,
    ) -> Self {
        let used = Instant::now();
        Self { epoch, last, events, bytes, dropped_events: 0, dropped_bytes: 0, max_events, max_bytes, at, used }
    }

    /// When what is written now was written.
    pub(super) fn at(&mut self, now: u64) -> u64 {
        self.at = self.at.max(now);
        self.used = Instant::now();
        self.at
    }

    /// Parts events into entries: of so few events and bytes that a log can be cut where it must be.
    pub(super) fn entries<'a>(&self, events: &'a [Bytes]) -> impl Iterator<Item = &'a [Bytes]> + use<'a> {
        let count = usize::try_from(self.max_events / 16).unwrap_or(usize::MAX).clamp(1, crate::config::BATCH_EVENTS);
        let size = usize::try_from(self.max_bytes / 16).unwrap_or(usize::MAX);
        let mut rest = events;
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fits = |event: &&Bytes| {
                let first = bytes == 0;
                bytes += event.len();
                first || bytes <= size
            };
            let (entry, left) = rest.split_at(rest.iter().take(count).take_while(fits).count());
            rest = left;
            (!entry.is_empty()).then_some(entry)
        })
    }

    /// Down to how many events and bytes the log is to be cut, if it holds too many after taking in so many.
    ///
    /// By a sixteenth too many, so that not every batch that follows has to cut.
    pub(super) fn cut(&self, events: u64, bytes: u64) -> Option<(u64, u64)> {
        let too_many = (self.events + events).saturating_sub(self.dropped_events) > self.max_events;
        let too_large = (self.bytes + bytes).saturating_sub(self.dropped_bytes) > self.max_bytes;
        let cut = |max: u64, too_much: bool| if too_much { max - max / 16 } else { max };
        (too_many || too_large).then(|| (cut(self.max_events, too_many), cut(self.max_bytes, too_large)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_small_enough_to_cut_between() {
        let sizes = |max_events, max_bytes, lengths: &[usize]| {
            let events: Vec<_> = lengths.iter().map(|length| Bytes::from(vec![b'x'; *length])).collect();
            let position = Position::new(1, 0, (0, 0), (max_events, max_bytes), 0);
            position.entries(&events).map(<[Bytes]>::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(10_000, 1 << 20, &[8; 130]), [64, 64, 2]);
        assert_eq!(sizes(32, 1 << 20, &[8; 5]), [2, 2, 1]);
        assert_eq!(sizes(1, 1 << 20, &[8; 2]), [1, 1]);
        assert_eq!(sizes(10_000, 160, &[4, 4, 4, 400, 4, 10, 1]), [2, 1, 1, 1, 1, 1]);
        assert_eq!(sizes(10_000, 160, &[]), [0; 0]);
    }
}
