//! The id of an event.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The id of an event within its stream: epoch and seq.
///
/// Ids increase strictly, and an epoch has no holes between them.
///
/// Clients see the text `e<epoch>-<seq>`. No other system writes such ids, so an id that a host gave an event is never
/// taken for one of these.
///
/// The epoch names a producer run; later runs have greater epochs. `seq` starts at 1; seq 0 marks the start or the end
/// of a run.
///
/// ```
/// use resilient_sse::EventId;
///
/// let id: EventId = "e1700000000000-7".parse()?;
/// assert_eq!((id.epoch, id.seq), (1_700_000_000_000, 7));
/// # Ok::<(), resilient_sse::InvalidEventId>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    /// The producer run.
    pub epoch: u64,
    /// The number of the event within the run, from 1.
    pub seq: u64,
}

impl EventId {
    /// Creates an id from an epoch and a seq.
    #[must_use]
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq }
    }

    /// Returns the id of the terminal event of the run `epoch`: epoch + 1, seq 0, whether the producer or another node
    /// closes the stream.
    #[must_use]
    pub const fn terminal(epoch: u64) -> Self {
        Self::new(epoch.saturating_add(1), 0)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('e').and_then(Self::from_pair).ok_or(InvalidEventId)
    }
}

impl TryFrom<&str> for EventId {
    type Error = InvalidEventId;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for EventId {
    type Error = InvalidEventId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl EventId {
    /// Reads `<epoch>-<seq>`, the form of the ids of a Redis stream.
    pub(crate) fn from_pair(text: &str) -> Option<Self> {
        let (epoch, seq) = text.split_once('-')?;
        Some(Self::new(digits(epoch)?, digits(seq)?))
    }

    /// Writes `<epoch>-<seq>`, see [`from_pair`](Self::from_pair).
    #[cfg(feature = "redis")]
    pub(crate) fn to_pair(self) -> String {
        format!("{}-{}", self.epoch, self.seq)
    }
}

/// Reads a decimal number without a sign or a leading zero, so that every id has exactly one spelling.
fn digits(text: &str) -> Option<u64> {
    let canonical = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// The error of reading a text that is not an [`EventId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEventId;

impl fmt::Display for InvalidEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event id has the form `e<epoch>-<seq>` with decimal numbers, such as e1700000000000-7")
    }
}

impl std::error::Error for InvalidEventId {}
