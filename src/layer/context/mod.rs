//! The context of a stream, which its handler gets as an extension of the request.

mod handle;
mod state;

pub use handle::WaitStopped;
pub use state::StreamContext;
pub(in crate::layer) use state::{Unanswered, Waiting};
