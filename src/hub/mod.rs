//! The hub, its builder and its handles. No other module names every layer, service and future of the library.

mod builder;
mod handles;
mod sse;

pub use builder::Builder;
pub use handles::{CompletionStore, StreamRegistry, Streams};
pub use sse::ResilientSse;
