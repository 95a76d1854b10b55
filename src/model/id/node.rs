//! The name of a node.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

/// One process that runs streams; random unless the host names it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A node's name. It must differ between processes that run at the same time, and should
    /// differ between two starts of one process: that is what tells a restart from a survivor.
    #[must_use]
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(name.as_ref().into())
    }

    /// A random name.
    #[must_use]
    pub fn random() -> Self {
        let mut name = String::with_capacity(16);
        let _ = write!(name, "{:016x}", crate::runtime::random::u128() as u64);
        Self(name.into())
    }

    /// The name as text.
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
