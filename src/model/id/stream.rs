//! The name of a stream.

use std::{borrow::Cow, error::Error, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest stream id, in bytes.
pub const MAX_STREAM_ID: usize = 128;

/// The name of a stream among its owner's streams: 1 to 128 bytes of `[A-Za-z0-9._~-]`.
///
/// A client may choose it, and `..` is a valid name. So do not use it as the name of a file.
///
/// ```
/// use resilient_sse::StreamId;
///
/// assert_eq!(StreamId::new("chat-42")?.as_str(), "chat-42");
/// assert!(StreamId::new("chat/42").is_err());
///
/// let id: StreamId = serde_json::from_str(r#""chat-42""#)?; // or axum's `Path<StreamId>`
/// assert_eq!(id, StreamId::new("chat-42")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(Arc<str>);

impl StreamId {
    /// Creates a stream id from a name.
    ///
    /// # Errors
    ///
    /// [`InvalidStreamId`] names the rule that the name breaks.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidStreamId> {
        let id = id.as_ref();
        if id.is_empty() {
            return Err(InvalidStreamId::Empty);
        }
        if id.len() > MAX_STREAM_ID {
            return Err(InvalidStreamId::TooLong { length: id.len() });
        }
        match id.bytes().position(|byte| !is_unreserved(byte)) {
            Some(position) => Err(InvalidStreamId::Character { position }),
            None => Ok(Self(id.into())),
        }
    }

    /// Creates an id with 122 random bits, in the form of a version 4 UUID (RFC 9562 § 5.4).
    #[must_use]
    pub fn random() -> Self {
        Self::from_random(crate::runtime::random::u128())
    }

    pub(crate) fn from_random(bits: u128) -> Self {
        let version = 0x4u128 << 76;
        let variant = 0x2u128 << 62;
        let bits = bits & !(0xf << 76) & !(0x3 << 62) | version | variant;
        let hex = format!("{bits:032x}");
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        Self(parts.join("-").into())
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the library may have generated this id: whether it has the form that [`random`](Self::random) gives.
    pub(crate) fn is_made_up(&self) -> bool {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let as_made = |(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => byte == b'4',
            19 => matches!(byte, b'8' | b'9' | b'a' | b'b'),
            _ => digit(byte),
        };
        self.0.len() == 36 && self.0.bytes().enumerate().all(as_made)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(id).map_err(serde::de::Error::custom)
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-')
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.0)
    }
}

impl FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::new(id)
    }
}

impl TryFrom<&str> for StreamId {
    type Error = InvalidStreamId;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl TryFrom<String> for StreamId {
    type Error = InvalidStreamId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

/// The error of reading a text that is not a [`StreamId`](crate::StreamId).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidStreamId {
    /// The text is empty.
    Empty,
    /// The text is longer than 128 bytes.
    TooLong {
        /// The length of the text, in bytes.
        length: usize,
    },
    /// The text has a character outside `[A-Za-z0-9._~-]`.
    Character {
        /// The offset of the first such byte.
        position: usize,
    },
    /// The text comes from a path and is not valid percent-encoding (RFC 3986 § 2.1), or not UTF-8.
    Encoding,
}

impl fmt::Display for InvalidStreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a stream id is 1 to {MAX_STREAM_ID} characters of [A-Za-z0-9._~-]; this one ")?;
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::TooLong { length } => write!(f, "has {length} bytes"),
            Self::Character { position } => write!(f, "has another character at byte {position}"),
            Self::Encoding => f.write_str("is not percent-encoded UTF-8 (RFC 3986, section 2.1)"),
        }
    }
}

impl Error for InvalidStreamId {}
