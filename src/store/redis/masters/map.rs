//! Which master has which slots.

use std::collections::HashMap;

use super::super::{keys::SLOTS, link::Link};

#[derive(Default)]
pub(super) struct Map {
    pub(super) links: HashMap<String, Link>,
    /// The ranges of slots: the first slot, the last, and their master.
    pub(super) ranges: Vec<(u16, u16, Link)>,
}

impl Map {
    pub(super) fn link(&self, slot: u16) -> Option<Link> {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, link) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then(|| link.clone())
    }

    /// Notes that a slot has another master now.
    pub(super) fn assign(&mut self, slot: u16, link: Link) {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let Some(index) = after.checked_sub(1) else { return };
        let (first, last, held) = self.ranges[index].clone();
        if slot > last || slot >= SLOTS || held.is(&link) {
            return;
        }
        let mut parts = Vec::with_capacity(3);
        if first < slot {
            parts.push((first, slot - 1, held.clone()));
        }
        parts.push((slot, slot, link));
        if slot < last {
            parts.push((slot + 1, last, held));
        }
        self.ranges.splice(index..=index, parts);
    }
}
