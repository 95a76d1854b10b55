//! Signs of life: a node's own, and those of its streams.

mod lease;
mod node;
mod outcome;
mod pulse;
mod renew;
mod streams;

pub(super) use pulse::Pulses;
