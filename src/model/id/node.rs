//! The name of a node.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

/// The name of a process that runs streams; random unless the host sets one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Creates a node id from a name.
    ///
    /// The name must differ between processes that run at the same time. It should also differ between two starts of
    /// one process, so that a restarted process is not taken for the one before it.
    #[must_use]
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(name.as_ref().into())
    }

    /// Creates a random node id.
    #[must_use]
    pub fn random() -> Self {
        let mut name = String::with_capacity(16);
        let _ = write!(name, "{:016x}", crate::runtime::random::u128() as u64);
        Self(name.into())
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}
