//! Leases: how a node's sign of life vouches for streams without naming each of them.
//!
//! The score of a stream in the index of active streams is its deadline, or the number of a lease. A lease's own deadline
//! stands in a small index beside it, and each beat of a node renews the leases of the streams that it lists. A stream is
//! named, and so put under the node's newest lease, once in [`TURNS`](held::TURNS) rounds. A lease that no listed stream stands under is
//! not renewed any more: whatever is left under it is found by a sweep when the lease is overdue.
//!
//! A node remembers which of its streams a server has put under which lease, and hears with each beat how many stand there.
//! What is remembered decides only what is named: if fewer stand under a lease than should, those that are missing are
//! looked for.

mod held;
mod naming;
mod number;
mod table;
#[cfg(test)]
mod tests;

pub(super) use held::Listed;
pub(super) use number::{LOWEST, anywhere, is_one, renewed_for, scores};
pub(super) use table::{Expected, Leases, Renewal};
