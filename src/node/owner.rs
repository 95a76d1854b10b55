//! Who calls: the host's rule, and what the host may say about a single access.

use std::sync::Arc;

use http::request::Parts;

use crate::{
    model::id::{Owner, StreamId, StreamKey},
    node::{Node, reject::Rejection},
    runtime::executor::BoxFuture,
    telemetry::log_error,
};

/// Finds a request's owner; `None` is answered with 401.
pub(crate) type OwnerRule = dyn Fn(&Parts) -> Option<Owner> + Send + Sync;

/// The rule of a host that sets none: an [`Owner`] in the request's extensions, put there by its
/// own authentication, which must therefore stand outside the layer.
pub(crate) fn from_extension(request: &Parts) -> Option<Owner> {
    request.extensions.get().cloned()
}

/// The head of a request, for the host's hooks. Empty where there is no such hook, to save the copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head(Option<Arc<Parts>>);

impl Head {
    pub(crate) fn new(request: &Parts, is_shown: bool) -> Self {
        Self(is_shown.then(|| Arc::new(request.clone())))
    }

    pub(crate) fn parts(&self) -> Option<&Parts> {
        self.0.as_deref()
    }

    /// The question to the `authorize` hook: who wants to read which stream.
    pub(crate) fn access(&self, key: &StreamKey, conversation: Option<&StreamId>) -> Option<Access> {
        let parts = self.parts()?;
        Some(Access {
            key: key.clone(),
            conversation: conversation.cloned(),
            method: parts.method.clone(),
            headers: parts.headers.clone(),
            uri: parts.uri.clone(),
            extensions: parts.extensions.clone(),
        })
    }
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

impl Node {
    /// Finds the request's owner, or rejects the request.
    pub(crate) fn owner_of(&self, request: &Parts) -> Result<Owner, Rejection> {
        self.find_owner(request).ok_or_else(|| self.nobody(request.uri.path()))
    }

    /// Finds the request's owner by the host's rule. Where an owner turns out to be needed later,
    /// [`nobody`](Self::nobody) makes the answer.
    pub(crate) fn find_owner(&self, request: &Parts) -> Option<Owner> {
        (self.owner)(request)
    }

    /// Rejects a request of this path for which the owner rule found nobody.
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

    /// Copies a request's head for the host's hooks, where there are any.
    pub(crate) fn head(&self, request: &Parts) -> Head {
        Head::new(request, self.authorize.is_some() || self.rejecter.on_reject.is_some())
    }

    /// Asks the host whether this consumer may read the stream. A denied stream is answered like a missing one.
    pub(crate) async fn authorize(&self, key: &StreamKey, head: &Head) -> Result<(), Rejection> {
        self.authorize_in(key, None, head).await
    }

    /// The same for a request that names a conversation.
    pub(crate) async fn authorize_in(
        &self,
        key: &StreamKey,
        conversation: Option<&StreamId>,
        head: &Head,
    ) -> Result<(), Rejection> {
        let Some(authorize) = &self.authorize else { return Ok(()) };
        let Some(access) = head.access(key, conversation) else { return Err(Rejection::NotFound) };
        if authorize(access).await { Ok(()) } else { Err(Rejection::NotFound) }
    }
}
