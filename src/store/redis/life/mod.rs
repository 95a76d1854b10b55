//! The transitions of a stream, one script each. In a cluster the indexes lie in other slots than the stream. There, requests of
//! their own add a stream to the indexes before its transition, and remove it after.

mod call;
mod delete;
mod end;
mod interrupt;
mod open;
mod publish;
mod reopen;
