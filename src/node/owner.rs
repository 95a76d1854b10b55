//! The application's rule for owners, and its hook that allows or denies an access.

use std::sync::Arc;

use http::request::Parts;

use crate::{
    model::id::{Owner, StreamId, StreamKey},
    runtime::executor::BoxFuture,
};

/// The rule that finds a request's owner. `None` is answered with 401.
pub(crate) type OwnerRule = dyn Fn(&Parts) -> Option<Owner> + Send + Sync;

/// The default owner rule: returns the [`Owner`] in the request's extensions. The application's authentication puts it
/// there, so that must stand outside the layer.
pub(crate) fn from_extension(request: &Parts) -> Option<Owner> {
    request.extensions.get().cloned()
}

/// An attempt to read a stream, begin a turn or stop a stream, for the hook of
/// [`Builder::authorize`](crate::Builder::authorize).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Access {
    /// The stream's owner, who is the caller, and its id.
    pub key: StreamKey,
    /// The conversation, if the request begins a turn, resumes or stops. The stream of a new turn does not exist yet.
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

/// Boxes the application's `authorize` closure.
pub(crate) fn authorize<F, R>(hook: F) -> Arc<Authorize>
where
    F: Fn(Access) -> R + Send + Sync + 'static,
    R: Future<Output = bool> + Send + 'static,
{
    Arc::new(move |access| Box::pin(hook(access)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_owner_is_the_one_that_authentication_left() {
        let mut request = http::Request::new(()).into_parts().0;
        assert_eq!(from_extension(&request), None, "nobody is no owner");
        request.extensions.insert(Owner::new("alice").unwrap());
        assert_eq!(from_extension(&request), Some(Owner::new("alice").unwrap()));
    }
}
