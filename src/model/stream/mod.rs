//! A stream: its states and endings, its registration, and the entries of its log.

mod disconnect;
mod ending;
mod info;
mod origin;
mod record;
mod state;

pub use disconnect::Disconnect;
pub use ending::{Ended, Ending, Reason, reason};
pub use info::StreamInfo;
pub use origin::Origin;
pub use record::{Frame, Record, RecordKind};
pub use state::StreamState;
