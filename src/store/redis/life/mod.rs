//! The transitions of a stream's life, one script each. In a cluster the indexes lie in other slots than the stream, so
//! there they are kept by requests of their own: put in before the stream is, taken out after it.

mod call;
mod delete;
mod end;
mod interrupt;
mod open;
mod publish;
mod reopen;
