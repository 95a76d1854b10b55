//! The idempotency keys of a published stream.

use std::collections::VecDeque;

use crate::model::id::EventId;

/// How many keys are remembered.
const REMEMBERED: usize = 1024;

/// The newest idempotency keys, and the ids of the events that came with them.
#[derive(Debug, Default)]
pub(super) struct RememberedKeys(
    /// The newest last.
    VecDeque<(String, EventId)>,
);

impl RememberedKeys {
    /// The id of the event that came with this key, if that is remembered.
    pub(super) fn id_of(&self, key: &str) -> Option<EventId> {
        self.0.iter().find(|(held, _)| held == key).map(|(_, id)| *id)
    }

    /// Remembers a key, and forgets the oldest one if there are too many.
    pub(super) fn remember(&mut self, key: String, id: EventId) {
        self.0.push_back((key, id));
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_keys_are_remembered() {
        let mut keys = RememberedKeys::default();
        for seq in 0..=REMEMBERED as u64 {
            keys.remember(seq.to_string(), EventId::new(5, seq));
        }
        let newest = REMEMBERED as u64;
        assert_eq!((keys.id_of("0"), keys.id_of("1")), (None, Some(EventId::new(5, 1))));
        assert_eq!(keys.id_of(&newest.to_string()), Some(EventId::new(5, newest)));
    }
}
