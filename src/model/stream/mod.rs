//! A stream: its states, its endings, what is known and held of it.

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
