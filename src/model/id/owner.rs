//! The owner of streams.

use std::{borrow::Cow, error::Error, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer};

/// The longest owner, in bytes.
pub const MAX_OWNER: usize = 256;

/// Whose a stream is: a user, a tenant, whatever the host says, or explicitly nobody.
///
/// The store's key is (owner, id), so a stream of another owner *is* a missing one (guarantee G9).
/// An anonymous owner is one that all anonymous callers share: there the random id is the only secret.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(Option<Arc<str>>);

impl Owner {
    /// The owner of streams that everybody who knows their id may read.
    pub const ANONYMOUS: Self = Self(None);

    /// Takes the host's name for a caller: 1 to 256 bytes, any characters.
    ///
    /// # Errors
    ///
    /// [`InvalidOwner`] if the name is empty or too long.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidOwner> {
        let name = name.as_ref();
        match name.len() {
            0 => Err(InvalidOwner::Empty),
            1..=MAX_OWNER => Ok(Self(Some(name.into()))),
            length => Err(InvalidOwner::TooLong { length }),
        }
    }

    /// The host's name for the owner; `None` if anonymous.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl TryFrom<&str> for Owner {
    type Error = InvalidOwner;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl TryFrom<String> for Owner {
    type Error = InvalidOwner;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl FromStr for Owner {
    type Err = InvalidOwner;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// As a name; nobody is anonymous by what is read.
impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "Owner({name:?})"),
            None => f.write_str("Owner(anonymous)"),
        }
    }
}

/// A text that is not an [`Owner`](crate::Owner).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidOwner {
    /// It is empty. A caller without a name is [`Owner::ANONYMOUS`](crate::Owner::ANONYMOUS), if the host allows it.
    Empty,
    /// It is longer than 256 bytes.
    TooLong {
        /// How long it is, in bytes.
        length: usize,
    },
}

impl fmt::Display for InvalidOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an owner is 1 to {MAX_OWNER} bytes; this one ")?;
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::TooLong { length } => write!(f, "has {length}"),
        }
    }
}

impl Error for InvalidOwner {}
