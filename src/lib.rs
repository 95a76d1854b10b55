//! Event streams that survive what really happens to them.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod config;
mod error;
mod event;
mod executor;
mod follow;
mod guardian;
mod headers;
mod hooks;
mod hub;
mod id;
mod layer;
mod panics;
mod protocol;
mod publish;
mod pulse;
mod random;
mod recorder;
mod recover;
pub mod store;
mod stream;
mod sync;
pub mod telemetry;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod test_util;
pub mod wire;

pub use config::{Durability, OnUnavailable};
pub use error::{BoxError, ConfigError, InvalidOwner, InvalidStreamId, StoreError};
pub use event::Event;
pub use follow::{AnswerBody, AnswerFuture, FollowBody};
pub use guardian::{DrainReport, Guardian};
pub use hooks::{Acknowledge, EndedStream, JobStatus, ProbeAnswer};
pub use hub::{Access, Builder, CompletionStore, Rejection, ResilientSse, StreamRegistry, Streams};
pub use id::{EventId, InvalidEventId, MAX_OWNER, MAX_STREAM_ID, NodeId, Owner, StreamId, StreamKey};
pub use layer::{
    Classify, Ends, Extension, Generate, Header, Identify, Identity, MetadataTooLarge, Outcome, PathTemplate,
    QueryParameter, ResilientSseBody, ResilientSseFuture, ResilientSseLayer, ResilientSseService, StreamContext, Voice,
    WaitStopped,
};
pub use publish::{Publication, PublishError, Publisher, Relay, Stopped, StreamSpec};
pub use recover::Recover;
pub use store::{MemoryStore, Store};
pub use stream::{Disconnect, Ended, Ending, Metadata, Reason, Record, RecordKind, StreamInfo, StreamState, reason};
pub use telemetry::{Health, HistogramSnapshot};
