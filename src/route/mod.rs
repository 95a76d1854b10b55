//! A route's settings: the identifier of streams, the classifier of terminal events, and the form of the library's own
//! events.

pub(crate) mod classify;
pub(crate) mod identify;
pub(crate) mod ready_made;
pub(crate) mod settings;
pub(crate) mod speaker;
