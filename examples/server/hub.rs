//! The hub: which store, whose requests, and what becomes of background jobs.

use http::request::Parts;
use resilient_sse::{Builder, Guardian, MemoryStore, NodeId, Owner, ResilientSse};

use crate::{
    jobs::{self, Jobs},
    options::Options,
    telling::MAX_SIZE,
};

/// Room around the largest payload for the rest of its event.
const AROUND: usize = 1024;

/// Sets the hub up as the options say. The error is a sentence.
pub(crate) fn build(options: &Options, jobs: &Jobs) -> Result<(ResilientSse, Guardian), String> {
    let mut builder = options.apply(on_store(options)?).owner(owner).max_event(MAX_SIZE + AROUND);
    if let Some(node) = &options.node {
        builder = builder.node(NodeId::new(node));
    }
    if let Some(files) = jobs.files() {
        builder = builder.job_probe(move |stream| jobs::probe(files.clone(), stream));
    }
    builder.build().map_err(|error| format!("these options cannot work: {error}"))
}

fn on_store(options: &Options) -> Result<Builder, String> {
    let url = options.store.as_str();
    let scheme = url.split_once("://").map_or(url, |(scheme, _)| scheme);
    match scheme {
        "memory" => Ok(ResilientSse::builder(MemoryStore::new())),
        "redis" | "rediss" | "redis+cluster" | "redis+sentinel" => Err(format!(
            "the store `{url}` needs the feature `redis`, which is not built in; without it there is `memory`"
        )),
        _ => Err(format!(
            "`--store` is memory, redis://…, rediss://…, redis+cluster://… or redis+sentinel://…; `{url}` is not"
        )),
    }
}

/// Whose a request is: the header `x-user-id`, else nobody in particular.
///
/// That is a demo's trust: anybody can send any header. A real service takes the caller from its own
/// authentication, and leaves anonymous callers out unless it wants them.
pub(crate) fn owner(request: &Parts) -> Option<Owner> {
    match request.headers.get("x-user-id") {
        None => Some(Owner::ANONYMOUS),
        Some(name) => Owner::new(std::str::from_utf8(name.as_bytes()).ok()?).ok(),
    }
}
