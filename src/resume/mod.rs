//! What a page needs besides the route that begins turns: to find the stream of its conversation that runs, and to stop it.
//!
//! Neither service runs an inner service, and a conversation of another owner is one that has no stream.

mod service;
mod stop;

use std::sync::Arc;

use http::request::Parts;
pub use service::Resume;
pub use stop::Stop;

use crate::{
    model::id::StreamKey,
    node::{Node, reject::Rejection},
    route::identify::{Identify, Name},
};

/// Finds the conversation that a request means.
fn conversation(node: &Node, identify: &Arc<dyn Identify>, parts: &Parts) -> Result<StreamKey, Rejection> {
    let owner = node.owner_of(parts)?;
    match identify.identify(parts).name {
        Name::Id(name) => Ok(StreamKey::new(owner, name)),
        Name::Malformed(error) => Err(Rejection::MalformedConversation(error)),
        Name::Bypass | Name::Generate => Err(Rejection::NotFound),
    }
}
