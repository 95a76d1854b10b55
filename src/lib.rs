//! Tower middleware that makes server-sent events survive disconnects and reloads, with replay, recovery and orphan
//! detection.
//!
//! # Quickstart
//!
//! ```
//! use axum::{Router, routing::{get_service, post}};
//! use resilient_sse::{MemoryStore, ResilientSse, StreamId};
//!
//! # async fn answer() -> &'static str { "" }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let shutdown = async {};
//! // The owner of a stream is the `Owner` that your authentication puts into the request's extensions.
//! let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).build()?;
//! let guardian = tokio::spawn(guardian.with_graceful_shutdown(shutdown)); // await it after the server
//! let resume = sse.resume().conversation(StreamId::path("/chat/{id}/stream"));
//! let stop = sse.stop().conversation(StreamId::path("/chat/{id}/stream"));
//! let app: Router = Router::new()
//!     .route("/chat/{id}", post(answer).layer(sse.generation().conversation(StreamId::path("/chat/{id}"))))
//!     .route("/chat/{id}/stream", get_service(resume).delete_service(stop));
//! # let _ = (app, guardian);
//! # Ok(())
//! # }
//! ```
//!
//! A stream is **one answer**, one export or one feed. A conversation is the owner's name for a chat. It points at its
//! newest stream, and each request to it is a new turn ([`ResilientSseLayer::conversation`]). On a route whose requests
//! name their streams themselves ([`ResilientSseLayer::id`]), a request with the same id gets the same answer, even if
//! it asks another question, until five minutes after the answer's end (the recovery window).
//!
//! [`protocol`] describes what a client sends and receives, for authors of clients in any language. [`docs`] is for
//! operators.
//!
//! # Words
//!
//! - A *stream* is one logical run of events, named by its owner and a [`StreamId`]. It outlives any connection.
//! - A *producer* appends a stream's events: the wrapped inner body, or a [`Publication`]. Each run of a producer is an
//!   *epoch*, and an event's id is `e<epoch>-<seq>`.
//! - To *follow* a stream is to replay its *log* and then tail it.
//! - A *conversation* is an owner's name for a sequence of streams, its *turns*.
//! - A *completion* is a stream's terminal event, kept for the recovery window.
//! - A [`Store`] holds all of this. The [`Guardian`] is the future that beats for running streams and sweeps orphans.
//!
//! # Guarantees
//!
//! Where two guarantees conflict, the earlier one in this order wins: G9, then G12, then G7 for a client already
//! attached, then G4, G3, G1 and G2, then G5's time bound.
//!
//! | | |
//! |---|---|
//! | G1 | a replay begins with the event right after the client's cursor, or with an explicit gap |
//! | G2 | an event that a client saw can be replayed ([`Durability`]) |
//! | G3 | the terminal event is never lost within the recovery window |
//! | G4 | a stream has one producer; a producer that was declared dead is fenced |
//! | G5 | no orphan lives on, and no live stream is taken for an orphan |
//! | G6 | nothing leaks |
//! | G7 | the live stream comes first: per outage a store delays events by at most 500 ms, a registration or terminal event by at most 2 s |
//! | G8 | a slow client makes the inner body wait, and every buffer is bounded |
//! | G9 | nobody reads a stream of another owner |
//! | G10 | the content of the inner service's events passes byte for byte |
//! | G11 | dropping a future, or a panic in inner code, breaks no guarantee and harms no other stream |
//! | G12 | an unfinished stream never looks finished: its response breaks off ([`BodyError`]) |
//!
//! # Order of layers
//!
//! From the outermost to the innermost: tracing, compression, **CORS**, **authentication**, this layer, the handler.
//! (In axum the layer that is added last is the outermost.)
//!
//! This layer answers a follow, a replay, a 204 and a refusal without the inner service, so layers inside of it do not
//! run for them. The code that decides who may read therefore belongs outside, in the owner rule ([`Builder::owner`]),
//! or in the hook that runs for every consumer ([`Builder::authorize`]). A layer that adds headers to every response
//! belongs outside too: with CORS inside, a browser could read the first response of a stream and none of the later
//! ones. [`protocol`] lists the headers that a CORS layer should expose.
//!
//! The layer handles GET and POST. A HEAD request passes untouched. Routers such as axum's run the handler of GET for
//! HEAD, so a handler that begins work before it returns its response begins that work for a HEAD too.
//!
//! # Recovery or relay?
//!
//! | | [`ResilientSse::recover`] | [`ResilientSse::relay`] |
//! |---|---|---|
//! | for | a client that was away and asks for its stream's state | a client of a stream that a background job publishes |
//! | answers with | JSON: the end, or a page of events; on request an event stream | an event stream, always |
//! | a stream that is not opened yet | 404 | the response waits for the stream |
//! | the work is begun by | the stream's own route, beside this one | a job elsewhere |
//!
//! Neither service runs a handler, and both serve streams of every kind.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `client` | `client`: the Rust client, an `EventSource` over any HTTP client that is a tower service |
//! | `redis` | `RedisStore` on one server, or behind Sentinels |
//! | `redis-cluster` | `RedisStore` on a Cluster |
//! | `redis-tls` | `RedisStore` over TLS |
//! | `tracing` | log events under the target `resilient_sse` |
//! | `metrics` | the figures of [`telemetry`] through the `metrics` facade |
//! | `test-util` | `test_util` for the tests of applications, `store::conformance` for other stores |
//! | `full` | all but `test-util` |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod client;
mod conversation;
pub mod docs;
mod follow;
mod guardian;
mod hooks;
mod hub;
mod layer;
mod model;
mod node;
mod produce;
pub mod protocol;
mod publish;
mod recorder;
mod recover;
mod resume;
mod route;
mod runtime;
pub mod store;
pub mod telemetry;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod test_util;
pub mod wire;

pub use follow::{AnswerBody, AnswerFuture};
pub use guardian::{DrainReport, Guardian};
pub use hooks::{Acknowledge, EndedStream, JobStatus, ProbeAnswer};
pub use hub::{Builder, CompletionStore, ResilientSse, StreamRegistry, Streams};
pub use layer::{ResilientSseFuture, ResilientSseLayer, ResilientSseService, StreamContext, WaitStopped};
pub use model::{
    config::{ConfigError, Durability, OnUnavailable},
    error::{BodyError, BoxError, StoreError},
    event::Event,
    id::{
        EventId, InvalidEventId, InvalidOwner, InvalidStreamId, MAX_OWNER, MAX_STREAM_ID, NodeId, Owner, StreamId,
        StreamKey,
    },
    kept::KeptHeaders,
    metadata::{Metadata, MetadataTooLarge},
    stream::{Disconnect, Ended, Ending, Frame, Origin, Reason, Record, RecordKind, StreamInfo, StreamState, reason},
    turn::{Overlap, Turn},
    voice::Voice,
};
pub use node::{owner::Access, reject::Rejection};
pub use produce::{body::ResilientSseBody, inner_body::InnerBody};
pub use publish::{Publication, PublishError, Publisher, Relay, Stopped, StreamSpec};
pub use recover::Recover;
pub use resume::{Resume, Stop};
pub use route::{
    classify::{Classify, Ends, Outcome},
    identify::{Identify, Identity},
    ready_made::{Extension, Generate, Header, PathTemplate, QueryParameter},
};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use store::redis::{RedisStore, RedisStoreBuilder, RedisStoreError};
pub use store::{MemoryStore, Store};
pub use telemetry::{Health, HistogramSnapshot};

/// The README's examples, as tests.
#[cfg(all(doctest, feature = "test-util", feature = "client"))]
#[doc = include_str!("../README.md")]
struct Readme;
