//! Conversations: turns, what overlaps, what is resumed and stopped, and what a crash leaves undone.

mod crashes;
mod explored;
mod kept;
mod late;
mod named;
mod overlaps;
mod races;
mod resumes;
mod said_again;
mod stage;
mod stops;
mod storms;
mod turns;
mod wire;
