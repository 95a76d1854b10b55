//! Estimates the number of a log's entries that fill a page, by the size of the entries that were read before.

use std::{collections::HashMap, sync::Mutex};

use super::super::stored::{Entry, Holds};
use crate::runtime::sync::lock;

/// The most logs whose densities are remembered.
const REMEMBERED: usize = 4096;

/// The number of events and bytes in some entries of a log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Density {
    pub(super) entries: usize,
    events: usize,
    bytes: usize,
}

impl Density {
    pub(super) fn of(entries: &[Entry]) -> Self {
        entries.iter().fold(Self::default(), |sum, entry| {
            let Holds::Events(frame) = &entry.holds else { return sum };
            let events = usize::try_from(frame.count).unwrap_or(usize::MAX);
            let (events, bytes) = (sum.events.saturating_add(events), sum.bytes + frame.bytes.len());
            Self { entries: sum.entries + 1, events, bytes }
        })
    }

    /// Returns the number of entries that hold `events` events or `bytes` bytes, whichever takes fewer entries.
    pub(super) fn entries(self, events: usize, bytes: usize) -> usize {
        let by = |room: usize, held: usize| (room as u128 * self.entries as u128).div_ceil(held.max(1) as u128);
        usize::try_from(by(events, self.events).min(by(bytes, self.bytes))).unwrap_or(usize::MAX).max(1)
    }
}

/// The densities of the entries that were read last, by the names of their streams.
#[derive(Default)]
pub(in super::super) struct Densities(Mutex<HashMap<String, Density>>);

impl Densities {
    pub(super) fn get(&self, name: &str) -> Option<Density> {
        lock(&self.0).get(name).copied()
    }

    pub(super) fn note(&self, name: &str, density: Density) {
        let mut held = lock(&self.0);
        if held.len() >= REMEMBERED && !held.contains_key(name) {
            held.clear();
        }
        held.insert(name.to_owned(), density);
    }
}
