//! Follows a stream: replays its log, then tails it live. A follower reads pages at its client's pace, and runs no code
//! of the inner service.

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
