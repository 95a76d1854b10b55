//! Runs an inner body.
//!
//! The [`Engine`](engine::Engine) cuts the bytes into blocks and gives these to the recorder. A [`Live`](live::Live)
//! body polls the engine for its client. When the client leaves, the [`Producer`](producer::Producer) drops the engine
//! or hands it to a [`Drive`](drive::Drive). The drive polls the engine on, for other readers and for clients that
//! return.

pub(crate) mod absence;
pub(crate) mod after_last;
pub(crate) mod body;
pub(crate) mod drive;
pub(crate) mod engine;
mod hand_over;
pub(crate) mod inner_body;
pub(crate) mod live;
pub(crate) mod patience;
pub(crate) mod producer;
pub(crate) mod source;
mod spent;
pub(crate) mod stop;
mod store_wait;
