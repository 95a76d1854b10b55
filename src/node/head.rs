//! The head of a request, for the application's hooks.

use std::sync::Arc;

use http::request::Parts;

use super::owner::Access;
use crate::model::id::{StreamId, StreamKey};

/// The head of a request, for the application's hooks. It is empty if there is no such hook, to save the copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head(Option<Arc<Parts>>);

impl Head {
    pub(crate) fn new(request: &Parts, is_shown: bool) -> Self {
        Self(is_shown.then(|| Arc::new(request.clone())))
    }

    pub(crate) fn parts(&self) -> Option<&Parts> {
        self.0.as_deref()
    }

    /// Returns the access to ask the `authorize` hook about, or `None` if the head is empty.
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
