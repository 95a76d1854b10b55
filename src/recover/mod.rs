//! The recovery service: a stream's state and events as JSON.
//!
//! It answers from the store alone, on any node, and never runs an inner service.

mod answer;
mod page;
mod query;
mod service;

pub use service::Recover;
pub(crate) use service::{follow_known, recover};
