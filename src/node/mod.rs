//! The state that the parts of one process share: settings, the store handle, the recorder, the owner rule, rejections
//! and hooks. The submodule `request` reads the heads of requests.

mod authorize;
mod forgotten;
pub(crate) mod head;
pub(crate) mod headers;
pub(crate) mod owner;
pub(crate) mod readers;
mod refuse;
pub(crate) mod reject;
pub(crate) mod request;
pub(crate) mod setup;
mod shared;
pub(crate) mod stop;

pub(crate) use shared::Node;
