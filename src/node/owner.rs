//! Who calls: the host's rule, and what the host may say about a single access.

use std::sync::Arc;

use http::request::Parts;

use crate::{
    model::id::{Owner, StreamId, StreamKey},
    runtime::executor::BoxFuture,
};

/// Finds a request's owner; `None` is answered with 401.
pub(crate) type OwnerRule = dyn Fn(&Parts) -> Option<Owner> + Send + Sync;

/// The rule of a host that sets none: an [`Owner`] in the request's extensions, put there by its
/// own authentication, which must therefore stand outside the layer.
pub(crate) fn from_extension(request: &Parts) -> Option<Owner> {
    request.extensions.get().cloned()
}

/// Somebody who wants to read a stream, begin a turn or stop one: what the `authorize` hook is asked about.
#[derive(Clone, Debug)]
pub struct Access {
    /// The stream; its owner is the caller.
    pub key: StreamKey,
    /// The conversation that the request names: of a new turn, a resume and a stop. A new turn's stream does not exist yet.
    pub conversation: Option<StreamId>,
    /// The request's method.
    pub method: http::Method,
    /// The request's headers.
    pub headers: http::HeaderMap,
    /// The request's target.
    pub uri: http::Uri,
    /// The request's extensions.
    pub extensions: http::Extensions,
}

pub(crate) type Authorize = dyn Fn(Access) -> BoxFuture<bool> + Send + Sync;

/// Boxes a host's `authorize` closure.
pub(crate) fn authorize<F, R>(hook: F) -> Arc<Authorize>
where
    F: Fn(Access) -> R + Send + Sync + 'static,
    R: Future<Output = bool> + Send + 'static,
{
    Arc::new(move |access| Box::pin(hook(access)))
}
