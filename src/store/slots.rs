//! Waiting wakers, each in a slot that its waiter keeps.

use std::task::Waker;

/// Wakers that wait for the same event. Registering, registering again and leaving are O(1).
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Option<Waker>>,
    /// Free slots.
    free: Vec<usize>,
    /// How often all wakers were taken out. A slot of an earlier round is no longer valid.
    round: u64,
    /// How often a slot was accessed.
    #[cfg(test)]
    pub(super) looked_at: usize,
}

/// A place among the wakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    index: usize,
    round: u64,
}

impl Slots {
    /// The number of waiting wakers.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts a waker into its waiter's slot, or into a new one. Returns the slot, and the waker that was there before.
    pub(super) fn put(&mut self, slot: Option<Slot>, waker: Waker) -> (Slot, Option<Waker>) {
        if let Some(slot) = slot.filter(|slot| slot.round == self.round) {
            let before = self.at(slot.index).replace(waker);
            return (slot, before);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        *self.at(index) = Some(waker);
        (Slot { index, round: self.round }, None)
    }

    /// Gives a slot back. Returns the waker that was in it.
    pub(super) fn leave(&mut self, slot: Slot) -> Option<Waker> {
        if slot.round != self.round {
            return None;
        }
        let waker = self.at(slot.index).take()?;
        self.free.push(slot.index);
        Some(waker)
    }

    /// Takes all wakers out. A task that continues to wait must register again.
    pub(super) fn take(&mut self) -> Vec<Option<Waker>> {
        self.round += 1;
        self.free.clear();
        // Most waiters register again at once.
        let room = Vec::with_capacity(self.slots.len());
        std::mem::replace(&mut self.slots, room)
    }

    fn at(&mut self, index: usize) -> &mut Option<Waker> {
        #[cfg(test)]
        {
            self.looked_at += 1;
        }
        &mut self.slots[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(slots: &mut Slots, slot: Option<Slot>) -> Slot {
        slots.put(slot, Waker::noop().clone()).0
    }

    #[test]
    fn slots_that_were_left_are_used_again() {
        let mut slots = Slots::default();
        let all: Vec<_> = (0..10).map(|_| put(&mut slots, None)).collect();
        assert_eq!((slots.len(), slots.slots.len()), (10, 10));
        for slot in &all[3..7] {
            assert!(slots.leave(*slot).is_some());
            assert!(slots.leave(*slot).is_none(), "once");
        }
        assert_eq!((slots.len(), slots.slots.len()), (6, 10));
        for _ in 0..4 {
            put(&mut slots, None);
        }
        assert_eq!((slots.len(), slots.slots.len()), (10, 10));
        assert_eq!(put(&mut slots, Some(all[0])), all[0], "who registers again keeps the slot");
        assert_eq!(slots.len(), 10);
    }

    #[test]
    fn a_slot_of_an_earlier_round_is_nobodys() {
        let mut slots = Slots::default();
        let (early, other) = (put(&mut slots, None), put(&mut slots, None));
        slots.leave(other);
        let taken = slots.take();
        assert_eq!((taken.len(), taken.iter().flatten().count(), slots.len()), (2, 1, 0));
        let late = put(&mut slots, None);
        assert!(slots.leave(early).is_none(), "another waits there by now");
        assert_eq!(slots.len(), 1);
        assert_ne!(put(&mut slots, Some(early)), late);
        assert_eq!(slots.len(), 2);
    }
}
