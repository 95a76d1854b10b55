//! Conversations: turns and how they overlap, resumes, stops, and crashes.

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
