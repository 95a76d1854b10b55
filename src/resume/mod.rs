//! The services that resume and stop the running stream of a conversation. A route of the layer begins the turns.
//!
//! Neither service runs an inner service. Both answer for another owner's conversation as for one without a stream.

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
        Name::OtherPath => Err(node.no_stream_name("resume", parts.uri.path())),
        Name::Bypass | Name::Generate => Err(Rejection::NotFound),
    }
}
