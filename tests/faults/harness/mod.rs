//! Tests of the harness of Redis processes that other tests rely on.

mod clusters;
mod failovers;
mod faults;
mod servers;
