//! The vocabulary: ids, events, streams, their errors, and a hub's settings.

pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod id;
pub(crate) mod kept;
pub(crate) mod metadata;
pub(crate) mod percent;
pub(crate) mod retention;
pub(crate) mod stream;
pub(crate) mod turn;
pub(crate) mod voice;
