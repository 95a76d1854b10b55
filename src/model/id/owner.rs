//! The owner of streams.

use std::{borrow::Cow, error::Error, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer};

/// The longest owner, in bytes.
pub const MAX_OWNER: usize = 256;

/// The owner of a stream: a user, a tenant or another name that the host chooses, or explicitly anonymous.
///
/// Stores keep streams by owner and id, so another owner's stream looks exactly like a missing one (guarantee G9).
/// All anonymous callers share one owner: any of them can read a stream if it knows the stream's random id.
///
/// ```
/// use resilient_sse::Owner;
///
/// assert_eq!(Owner::new("ann")?.name(), Some("ann"));
/// assert!(Owner::new("").is_err());
/// # Ok::<(), resilient_sse::InvalidOwner>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(Option<Arc<str>>);

impl Owner {
    /// The owner of anonymous streams, which every caller that knows their id may read.
    pub const ANONYMOUS: Self = Self(None);

    /// Creates an owner from the host's name for a caller: 1 to 256 bytes, any characters.
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

    /// Returns the host's name for the owner; `None` if anonymous.
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

/// Reads a name. No text deserializes to [`Owner::ANONYMOUS`], so that input cannot select the anonymous owner.
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

/// The error of reading a text that is not an [`Owner`](crate::Owner).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidOwner {
    /// The text is empty. Use [`Owner::ANONYMOUS`](crate::Owner::ANONYMOUS) for a caller without a name.
    Empty,
    /// The text is longer than 256 bytes.
    TooLong {
        /// The length of the text, in bytes.
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
