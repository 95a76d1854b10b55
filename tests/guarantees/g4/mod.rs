//! G4: one producer.

mod fencing;
mod races;
