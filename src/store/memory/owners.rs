//! The streams of each owner.

use std::collections::{HashMap, HashSet};

use crate::model::id::{Owner, StreamId, StreamKey};

/// The ids of each owner's streams. An owner without streams has no element.
#[derive(Default)]
pub(super) struct Owners(HashMap<Owner, HashSet<StreamId>>);

impl Owners {
    pub(super) fn ids<'a>(&'a self, owner: &Owner) -> impl Iterator<Item = &'a StreamId> + use<'a> {
        self.0.get(owner).into_iter().flatten()
    }

    pub(super) fn insert(&mut self, key: &StreamKey) {
        self.0.entry(key.owner.clone()).or_default().insert(key.id.clone());
    }

    pub(super) fn remove(&mut self, key: &StreamKey) {
        if let Some(ids) = self.0.get_mut(&key.owner) {
            ids.remove(&key.id);
            if ids.is_empty() {
                self.0.remove(&key.owner);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
