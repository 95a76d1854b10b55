//! G8: backpressure and bounds.

mod allocations;
mod behind;
mod kept;
mod readers;
mod settings;
mod shares;
mod slow;
mod unattended;
mod wakes;
