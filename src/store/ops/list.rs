//! Listing an owner's streams, page by page.

use crate::model::{
    id::{Owner, StreamId},
    stream::StreamInfo,
};

/// A request for a page of an owner's streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The owner of the streams.
    pub owner: Owner,
    /// The stream after which the page begins. `None`: the page is the first one. If the store no longer holds that
    /// stream, the page is empty.
    pub after: Option<StreamId>,
    /// How many streams the page has at most.
    pub limit: usize,
}

/// A page of an owner's streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The streams: first the active ones, the newest first; then the others, those that expire last first.
    pub streams: Vec<StreamInfo>,
    /// The [`List::after`] of the next page. `None`: there is none.
    pub next: Option<StreamId>,
}

impl Listed {
    /// A page of these streams; `next` is the [`List::after`] of the next page, if there is one.
    #[must_use]
    pub fn new(streams: Vec<StreamInfo>, next: Option<StreamId>) -> Self {
        Self { streams, next }
    }
}
