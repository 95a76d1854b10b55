//! The hub: its store, its owner rule, its job probe and its `on_end` hook.

use http::request::Parts;
use resilient_sse::{Builder, Guardian, MemoryStore, NodeId, Owner, ResilientSse};

use crate::{
    endings::Endings,
    jobs::{self, Jobs},
    options::Options,
    telling::MAX_SIZE,
};

/// The bytes that an event may have in addition to the largest payload.
const AROUND: usize = 1024;

/// Builds the hub from the options. The error is a sentence.
pub(crate) async fn build(options: &Options, jobs: &Jobs) -> Result<(ResilientSse, Guardian), String> {
    let mut builder = options.apply(on_store(options).await?).owner(owner).max_event_bytes(MAX_SIZE + AROUND);
    if let Some(node) = &options.node {
        builder = builder.node(NodeId::new(node));
    }
    if let Some(files) = jobs.files() {
        builder = builder.job_probe(move |stream| jobs::probe(files.clone(), stream));
    }
    if let Some(file) = &options.hook_file {
        let endings = Endings::open(file.clone(), options.hook_delay)?;
        builder = builder.on_end(move |ended| endings.clone().note(ended));
    }
    builder.build().map_err(|error| format!("these options cannot work: {error}"))
}

async fn on_store(options: &Options) -> Result<Builder, String> {
    let url = options.store.as_str();
    let scheme = url.split_once("://").map_or(url, |(scheme, _)| scheme);
    match scheme {
        "memory" => Ok(ResilientSse::builder(MemoryStore::new())),
        "redis" | "rediss" | "redis+cluster" | "rediss+cluster" | "redis+sentinel" | "rediss+sentinel" => {
            on_redis(options).await
        }
        _ => Err(format!(
            "`--store` is memory, redis://…, rediss://…, redis+cluster://… or redis+sentinel://…; `{}` is not",
            // A URL without a scheme may hold a password before its `@`. Do not print it.
            scheme.rsplit('@').next().unwrap_or_default()
        )),
    }
}

#[cfg(feature = "redis")]
async fn on_redis(options: &Options) -> Result<Builder, String> {
    let refused = |error: resilient_sse::RedisStoreError| format!("the store cannot be used: {error}");
    let store = resilient_sse::RedisStore::builder(&options.store).map_err(refused)?.key_prefix(&options.key_prefix);
    Ok(ResilientSse::builder(store.connect().await.map_err(refused)?))
}

#[cfg(not(feature = "redis"))]
async fn on_redis(options: &Options) -> Result<Builder, String> {
    let scheme = options.store.split_once("://").map_or("", |(scheme, _)| scheme);
    Err(format!(
        "a store at {scheme}:// needs the feature `redis`, which is not built in (--features full); without it there is `memory`"
    ))
}

/// Returns the owner of a request: the value of the header `x-user-id`, or the anonymous owner if there is no such
/// header.
///
/// This is only for a demo, since a client can send any header. A real service takes the owner from its own
/// authentication, and refuses anonymous callers unless it wants them.
pub(crate) fn owner(request: &Parts) -> Option<Owner> {
    match request.headers.get("x-user-id") {
        None => Some(Owner::ANONYMOUS),
        Some(name) => Owner::new(std::str::from_utf8(name.as_bytes()).ok()?).ok(),
    }
}
