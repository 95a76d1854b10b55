//! G7: the live stream comes first, whatever the store does.

mod bounds;
mod forgotten;
mod late_guardian;
mod outages;
mod refused;
mod unavailable;
mod unrecorded;
