//! The context of a stream: an extension of the request that its handler gets.

mod handle;
mod state;

pub use handle::WaitStopped;
pub use state::StreamContext;
pub(in crate::layer) use state::{Unanswered, Waiting};
