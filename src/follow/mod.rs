//! To follow a stream: replay from the log, then tail it live. Reads pages at the client's own pace,
//! and runs no code of the inner service.

mod answer;
mod body;
pub(crate) mod brief;
pub(crate) mod closing;
mod following;
mod pages;
mod replayer;
mod request;
mod tell;

pub use answer::{AnswerBody, AnswerFuture};
pub(crate) use body::FollowBody;
pub(crate) use request::{FollowRequest, Manner, Unknown};
pub(crate) use tell::tell_step;
