//! Whether a stream ever had a run.

use redis::Value;

use super::super::{
    error::RedisStoreError,
    keys::StreamKeys,
    request::Request,
    stored::{self, Entry, Held, Holds},
};
use super::requests::peek;
use crate::model::id::EventId;

/// Whether a stream ever had the run of a cursor that is not in its newest run, if the hash tells that.
pub(super) fn knows_by_state(held: &Held, cursor: EventId) -> Option<bool> {
    if held.lost().is_some_and(|lost| cursor.epoch <= lost.epoch) {
        return Some(true);
    }
    (cursor.epoch > held.epoch()).then_some(false)
}

/// Asks for the first entry of the log, and for the first one at or after a run's marker.
pub(super) fn runs(keys: &StreamKeys, cursor: EventId) -> [Request; 2] {
    let marker = EventId::new(cursor.epoch, 0);
    [peek(keys, "XRANGE", "-"), peek(keys, "XRANGE", &marker.to_pair())]
}

/// Whether a stream ever had the run of a cursor that is not in its newest run, as far as the log tells.
pub(super) fn knows(cursor: EventId, first: Value, run: Value) -> Result<bool, RedisStoreError> {
    let marker = EventId::new(cursor.epoch, 0);
    let (first, run) = (stored::entries(first)?, stored::entries(run)?);
    // The next marker may be that of the run, or stand for several runs, this one among them.
    let own = |entry: &Entry| match entry.holds {
        Holds::Run { since, .. } => since.unwrap_or(entry.id) <= marker,
        Holds::Events(_) | Holds::Seal | Holds::Unreadable => false,
    };
    if run.iter().any(own) {
        return Ok(true);
    }
    // Runs before the first entry that is held were held once.
    Ok(first.first().is_some_and(|first| match &first.holds {
        Holds::Run { previous, .. } => previous.is_some_and(|previous| cursor.epoch <= previous.epoch),
        Holds::Events(_) | Holds::Seal | Holds::Unreadable => cursor.epoch <= first.id.epoch,
    }))
}
