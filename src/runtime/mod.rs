//! Tools without knowledge of streams, which every other module may use: the executor, caught panics, the ticker,
//! randomness and locks.

pub(crate) mod executor;
pub(crate) mod panics;
pub(crate) mod pulse;
pub(crate) mod random;
pub(crate) mod sync;
