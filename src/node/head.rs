//! The head of a request, as the host's hooks see it.

use std::sync::Arc;

use http::request::Parts;

use super::owner::Access;
use crate::model::id::{StreamId, StreamKey};

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
