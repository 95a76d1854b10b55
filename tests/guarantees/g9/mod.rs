//! G9: no one else's stream.

mod identity;
mod names;
mod owners;
mod rejections;
