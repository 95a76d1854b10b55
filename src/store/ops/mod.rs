//! The requests of the [`Store`](super::Store) trait and their outcomes: a file for each transition of a stream.

mod append;
mod beat;
mod close;
mod due;
mod fence;
mod interrupt;
mod list;
mod open;
mod publish;
mod read;
mod reopen;

pub use append::{Append, Appended};
pub use beat::{Beat, Beaten};
pub use close::{Close, Closed};
pub use due::{Due, DueReason};
pub use fence::Fence;
pub use interrupt::{Interrupt, Interrupted};
pub use list::{List, Listed};
pub use open::{Open, Opened};
pub use publish::{Publish, Published};
pub use read::{Page, Read, ReadFrom};
pub use reopen::{Reopen, Reopened};
