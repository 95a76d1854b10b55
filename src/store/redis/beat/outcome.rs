//! The outcome of a beat, step by step.

use std::collections::HashSet;

use super::super::{error::RedisStoreError, leases::Listed};
use crate::store::Beat;

/// The outcome of the node's own sign of life.
pub(super) struct NodeBeat {
    /// The answer for each part of the indexes.
    pub(super) parts: Vec<PartAnswer>,
    /// The parts in which the leases of the listed streams were renewed.
    pub(super) renewed: HashSet<u16>,
    /// The error of a part that did not take it.
    pub(super) error: Option<RedisStoreError>,
}

/// The answer of a part of the indexes to a node's sign of life.
#[derive(Clone, Copy)]
pub(super) enum PartAnswer {
    /// The part took it. With the time of its server.
    Taken(u64),
    /// The server answered with an error.
    Refused,
    /// The server did not answer.
    Nothing,
}

impl PartAnswer {
    pub(super) fn taken(self) -> Option<u64> {
        if let Self::Taken(now) = self { Some(now) } else { None }
    }
}

/// A beat after the node's own sign of life was sent: what its streams need to know.
#[derive(Clone, Copy)]
pub(super) struct BeatRound<'a> {
    pub(super) beat: &'a Beat,
    pub(super) listed: &'a [Listed],
    pub(super) node_beat: &'a NodeBeat,
    /// The node's newest lease.
    pub(super) lease: u64,
    /// Whether all streams are to be named and looked at.
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

/// The outcome of a beat for the listed streams, by index.
#[derive(Default)]
pub(super) struct StreamsBeat {
    pub(super) lost: Vec<usize>,
    pub(super) missed: Vec<usize>,
    /// The parts of the indexes that did not take all of it.
    pub(super) refused: Vec<u16>,
    pub(super) error: Option<RedisStoreError>,
}
