//! Leases let a node's beat keep many streams alive without naming each of them.
//!
//! The score of a stream in the index of active streams is its deadline, or the number of a lease. The deadline of a lease is
//! in a small index beside it. Each beat of a node renews the leases that its listed streams stand under, which moves the
//! deadline of all streams under them. Each stream is named once in [`TURNS`](held::TURNS) rounds of beats, which sets its
//! score to the node's newest lease. A lease without listed streams is not renewed any more. When it is overdue, a sweep finds
//! the streams that are left under it.
//!
//! A process remembers the lease under which a server has put each of its streams, and each beat returns the number of streams
//! under each lease. If that number is lower than the process remembers, it searches for the missing streams. What it remembers
//! only decides which streams its beats name.

mod held;
mod naming;
mod number;
mod table;
#[cfg(test)]
mod tests;

pub(super) use held::Listed;
pub(super) use number::{LOWEST, anywhere, is_one, renewed_for, scores};
pub(super) use table::{Expected, Leases, Renewal};
