//! The embedded default: one process, the same guarantees within it. See [`MemoryStore`].
//!
//! [`store`] has the parts and their locks, [`transitions`] what is done to a stream, [`entry`] one stream, [`log`] its
//! events. A [`shard`] is some of the streams, under one lock.

mod clock;
mod conversation;
mod entry;
mod log;
mod many;
mod owners;
mod pointers;
mod shard;
mod store;
mod store_impl;
#[cfg(test)]
mod tests;
mod transitions;

pub use store::MemoryStore;
