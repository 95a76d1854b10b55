//! G2: what a client saw can be replayed.

mod ahead;
mod delivery;
mod linger;
mod replay;
