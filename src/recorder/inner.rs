//! The id and the reconnect delay that an inner service sets in its event stream.

/// Which parts of [`Inner`] the next batch carries.
#[derive(Default)]
pub(super) struct Unsent {
    pub(super) id: bool,
    pub(super) retry: bool,
}

impl Unsent {
    pub(super) fn note(&mut self, inner: &Inner) {
        self.id |= inner.id.is_some();
        self.retry |= inner.retry.is_some();
    }
}

/// The last id and the last reconnect delay that an inner service set in its event stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inner {
    /// The id.
    pub(crate) id: Option<String>,
    /// The reconnect delay, in milliseconds.
    pub(crate) retry: Option<u64>,
}

impl Inner {
    pub(crate) fn is_none(&self) -> bool {
        self.id.is_none() && self.retry.is_none()
    }

    pub(super) fn update(&mut self, newer: Self) {
        self.id = newer.id.or(self.id.take());
        self.retry = newer.retry.or(self.retry);
    }
}
