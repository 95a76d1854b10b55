//! One stream in the memory store, and its transitions. [`state`] says what is held; each other file is one concern.

mod deadlines;
mod keys;
mod open;
mod publish;
mod read;
mod state;
mod write;

pub(super) use state::Entry;
