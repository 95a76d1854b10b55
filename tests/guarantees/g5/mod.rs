//! G5: no orphan lives on, and no live stream is taken for one.

mod drain;
mod drain_hooks;
mod drain_limits;
mod orphans;
mod real;
mod trust;
