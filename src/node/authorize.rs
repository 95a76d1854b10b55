//! Finds a request's owner, and asks the application's `authorize` hook about an access.

use std::sync::atomic::Ordering;

use http::request::Parts;

use super::{Node, head::Head, reject::Rejection};
use crate::{
    model::id::{Owner, StreamId, StreamKey},
    telemetry::log_alert,
};

impl Node {
    /// Returns the request's owner, or the rejection of a request without one.
    pub(crate) fn owner_of(&self, request: &Parts) -> Result<Owner, Rejection> {
        self.find_owner(request).ok_or_else(|| self.unauthorized(request.uri.path()))
    }

    /// Finds the request's owner by the application's rule. A caller that needs an owner only later rejects the request
    /// then with [`unauthorized`](Self::unauthorized).
    pub(crate) fn find_owner(&self, request: &Parts) -> Option<Owner> {
        let owner = (self.owner)(request);
        if owner.is_some() && !self.owned.load(Ordering::Relaxed) {
            self.owned.store(true, Ordering::Relaxed);
        }
        owner
    }

    /// Returns the rejection of a request for which the owner rule found no owner. Reports that once a minute at most, while the
    /// rule has found no owner for any request: later it is a visitor who is not signed in.
    pub(crate) fn unauthorized(&self, path: &str) -> Rejection {
        if !self.owned.load(Ordering::Relaxed)
            && let Some(requests) = self.unowned.due()
        {
            log_alert!(
                path = path,
                requests = requests,
                "the owner rule has found no owner for any request so far: is the authentication outside this layer?"
            );
        }
        Rejection::Unauthorized
    }

    /// Copies a request's head for the application's hooks, if there are any.
    pub(crate) fn head(&self, request: &Parts) -> Head {
        Head::new(request, self.authorize.is_some() || self.rejecter.on_reject.is_some())
    }

    /// Asks the `authorize` hook whether the request may read the stream. A denied stream is answered like a missing
    /// one.
    pub(crate) async fn authorize(&self, key: &StreamKey, head: &Head) -> Result<(), Rejection> {
        self.authorize_in(key, None, head).await
    }

    /// Asks the `authorize` hook like [`authorize`](Self::authorize), about a request that names a conversation.
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
