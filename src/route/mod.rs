//! A route's settings: how requests name their streams, which event ends a stream, and in which voice the library speaks.

pub(crate) mod classify;
pub(crate) mod identify;
pub(crate) mod ready_made;
pub(crate) mod settings;
pub(crate) mod speaker;
