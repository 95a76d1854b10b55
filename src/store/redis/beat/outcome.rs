//! What became of a node's sign of life.

use std::collections::HashSet;

use super::super::{error::RedisStoreError, leases::Listed};
use crate::store::Beat;

/// What became of a node's sign of life.
pub(super) struct NodeBeat {
    /// What the server of each part of the indexes said.
    pub(super) parts: Vec<PartAnswer>,
    /// The parts whose server has renewed the leases of the listed streams.
    pub(super) renewed: HashSet<u16>,
    /// Why one did not take it.
    pub(super) error: Option<RedisStoreError>,
}

/// What the server of a part of the indexes said to a node's sign of life.
#[derive(Clone, Copy)]
pub(super) enum PartAnswer {
    /// It took it; its clock.
    Taken(u64),
    /// It answered, and did not take it.
    Refused,
    /// It did not answer.
    Nothing,
}

impl PartAnswer {
    pub(super) fn taken(self) -> Option<u64> {
        if let Self::Taken(now) = self { Some(now) } else { None }
    }
}

/// A beat whose node has said that it lives.
#[derive(Clone, Copy)]
pub(super) struct BeatRound<'a> {
    pub(super) beat: &'a Beat,
    pub(super) listed: &'a [Listed],
    pub(super) node_beat: &'a NodeBeat,
    /// The node's newest lease.
    pub(super) lease: u64,
    /// Whether all streams are named and looked at.
    pub(super) everything: bool,
}

impl BeatRound<'_> {
    pub(super) fn part(&self, index: usize) -> u16 {
        self.listed[index].part
    }

    pub(super) fn is_silent(&self, part: u16) -> bool {
        matches!(self.node_beat.parts[usize::from(part)], PartAnswer::Nothing)
    }

    pub(super) fn is_renewed(&self, part: u16) -> bool {
        self.node_beat.renewed.contains(&part)
    }
}

/// How a beat's streams fared.
#[derive(Default)]
pub(super) struct StreamsBeat {
    pub(super) lost: Vec<usize>,
    pub(super) missed: Vec<usize>,
    /// The parts of the indexes that did not take all of it, and why one did not.
    pub(super) refused: Vec<u16>,
    pub(super) error: Option<RedisStoreError>,
}
