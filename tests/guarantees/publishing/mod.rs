//! The publisher, the relay that follows what it sends, and a stop that reaches the work.

mod publisher;
mod relay;
mod stopping;
