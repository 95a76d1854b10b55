//! What every floor may use and that knows nothing of streams: spawning, panics that are caught, the ticker, randomness, locks.

pub(crate) mod executor;
pub(crate) mod panics;
pub(crate) mod pulse;
pub(crate) mod random;
pub(crate) mod sync;
