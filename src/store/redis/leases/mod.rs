//! Leases: how a node's sign of life vouches for streams without naming each of them.
//!
//! The score of a stream in the index of active streams is its deadline, or the number of a lease. The deadline of a lease is
//! in a small index beside it. Each beat of a node renews the leases that its listed streams stand under, which moves the
//! deadline of all streams under them. Once in [`TURNS`](held::TURNS) rounds of beats a stream is named: its score is set to
//! the node's newest lease. A lease that no listed stream stands under is not renewed any more. Streams that are left under it
//! are found by a sweep when the lease is overdue.
//!
//! A process remembers which of its streams a server has put under which lease, and each beat returns how many stand under
//! each. If that is less than it remembers, it looks for those that are missing. What it remembers only decides which streams
//! are named.

mod held;
mod naming;
mod number;
mod table;
#[cfg(test)]
mod tests;

pub(super) use held::Listed;
pub(super) use number::{LOWEST, anywhere, is_one, renewed_for, scores};
pub(super) use table::{Expected, Leases, Renewal};
