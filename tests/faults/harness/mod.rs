//! The harness of Redis processes does what the tests on it rely on.

mod clusters;
mod failovers;
mod faults;
mod servers;
