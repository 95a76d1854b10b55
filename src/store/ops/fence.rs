//! Why a write comes too late.

use crate::model::stream::Ended;

/// Why the store refused a producer's write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fence {
    /// A newer run was opened, or this one was interrupted.
    Newer,
    /// The stream has ended.
    Ended(Ended),
}
