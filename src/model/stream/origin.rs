//! The origin of a stream.

/// The producer of a stream, and the source of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An inner body produces the stream, and the request named it.
    Named,
    /// An inner body produces the stream, and the library generated its id, which prefixes its event ids.
    Generated,
    /// A publisher produces the stream.
    Published,
}

impl Origin {
    /// Returns the name under which stores keep the origin.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Generated => "generated",
            Self::Published => "published",
        }
    }
}

impl Origin {
    /// Returns the origin after a request starts a new run of a stream of this origin.
    ///
    /// A generated stream stays generated when a request names it, so that its event ids keep their prefix.
    pub(crate) fn of_new_run(self, request: Self) -> Self {
        if self == Self::Generated && request == Self::Named { self } else { request }
    }
}
