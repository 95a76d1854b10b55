//! Finds a request's owner, and asks the host about a single access.

use http::request::Parts;

use super::{Node, head::Head, reject::Rejection};
use crate::{
    model::id::{Owner, StreamId, StreamKey},
    telemetry::log_error,
};

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
