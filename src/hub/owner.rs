//! Who calls: the host's rule, and what the host may say about a single access.

use std::sync::Arc;

use http::request::Parts;

use super::{Core, Rejection};
use crate::{
    id::{Owner, StreamKey},
    store::handle::BoxFuture,
    telemetry::log_error,
};

/// Finds a request's owner; `None` is answered with 401.
pub(crate) type OwnerRule = dyn Fn(&Parts) -> Option<Owner> + Send + Sync;

/// The rule of a host that sets none: an [`Owner`] in the request's extensions, put there by its
/// own authentication, which must therefore stand outside the layer.
pub(crate) fn from_extension(request: &Parts) -> Option<Owner> {
    request.extensions.get().cloned()
}

/// What the host's hooks are shown of a request; empty where there is no such hook, since a copy has its price.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head(Option<Arc<Parts>>);

impl Head {
    pub(super) fn new(request: &Parts, is_shown: bool) -> Self {
        Self(is_shown.then(|| Arc::new(request.clone())))
    }

    pub(super) fn parts(&self) -> Option<&Parts> {
        self.0.as_deref()
    }

    /// What the `authorize` hook is asked about.
    pub(super) fn access(&self, key: &StreamKey) -> Option<Access> {
        let parts = self.parts()?;
        Some(Access {
            key: key.clone(),
            method: parts.method.clone(),
            headers: parts.headers.clone(),
            uri: parts.uri.clone(),
            extensions: parts.extensions.clone(),
        })
    }
}

/// A consumer who wants to read a stream: what the `authorize` hook is asked about.
#[derive(Clone, Debug)]
pub struct Access {
    /// The stream; its owner is the caller.
    pub key: StreamKey,
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

impl Core {
    /// Whose request it is; a request of nobody is rejected.
    pub(crate) fn owner_of(&self, request: &Parts) -> Result<Owner, Rejection> {
        self.find_owner(request).ok_or_else(|| self.nobody(request.uri.path()))
    }

    /// Whose request it is, if the host's rule finds anybody. Where it turns out later that somebody must be found,
    /// [`nobody`](Self::nobody) is the answer.
    pub(crate) fn find_owner(&self, request: &Parts) -> Option<Owner> {
        (self.owner)(request)
    }

    /// The owner rule finds nobody for a request of this path.
    pub(crate) fn nobody(&self, path: &str) -> Rejection {
        if let Some(requests) = self.unowned.due() {
            log_error!(
                path = path,
                requests = requests,
                "the owner rule finds nobody: does the authentication stand outside this layer?"
            );
        }
        Rejection::Unauthorized
    }

    /// The parts of a request's head that the host's hooks are shown, where there are any.
    pub(crate) fn head(&self, request: &Parts) -> Head {
        Head::new(request, self.authorize.is_some() || self.rejecter.on_reject.is_some())
    }

    /// Whether the host lets this consumer read the stream. A denied one is a missing one.
    pub(crate) async fn authorize(&self, key: &StreamKey, head: &Head) -> Result<(), Rejection> {
        let Some(authorize) = &self.authorize else { return Ok(()) };
        let Some(access) = head.access(key) else { return Err(Rejection::NotFound) };
        if authorize(access).await { Ok(()) } else { Err(Rejection::NotFound) }
    }
}
