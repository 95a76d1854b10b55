//! G3: the terminal event is never lost.

mod endings;
mod failover;
mod hooks;
mod terminal;
mod unstored;
