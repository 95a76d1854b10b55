//! The kind of producer that a stream has.

/// Who produces a stream, and who named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An inner body; the request named the stream.
    Named,
    /// An inner body; the library made up the stream's id, which stands in front of its event ids.
    Generated,
    /// A publisher.
    Published,
}

impl Origin {
    /// The origin's name, as it stands in stores.
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
    /// The origin of a stream's new run, after one of this origin.
    pub(crate) fn of_new_run(self, request: Self) -> Self {
        if self == Self::Generated && request == Self::Named { self } else { request }
    }
}
