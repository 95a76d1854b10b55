//! The recorder: it writes the events of producers to the store in batches, in order, and retries until they are
//! stored. It reports the store's answers to the producers.
//!
//! Each running stream has a [`Lane`]: its pending events, at most one immutable batch in flight, and its end once that
//! is requested. A lane that has something to send is *ready*. If the store answers at once, a ready lane is processed
//! in place. Otherwise it waits in the ready list for the flusher, which the guardian polls. The flusher gathers the
//! batches of many lanes into one flight.

mod again;
mod ahead;
mod answers;
mod begun;
mod elsewhere;
mod flush;
mod inner;
mod lane;
mod limits;
mod make_room;
mod opening;
mod pending;
mod producing;
mod push;
mod pushed;
mod reader;
mod readers;
mod registration;
mod request;
mod room;
mod roster;
mod served;
mod state;
#[cfg(all(test, feature = "test-util"))]
mod tests;
pub(crate) mod unattended;
mod work;

pub(crate) use begun::Begun;
pub(crate) use flush::Flusher;
pub(crate) use inner::Inner;
pub(crate) use lane::Lane;
pub(crate) use limits::EntryLimits;
pub(crate) use opening::{LATE, Opening};
pub(crate) use producing::{EndRequest, Producing, Status};
pub(crate) use reader::Reader;
pub(crate) use roster::Roll;
pub(crate) use work::Recorder;
