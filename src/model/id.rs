//! Names: who owns a stream, which stream, which event of it, which node.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Deserializer};

use crate::model::error::{InvalidOwner, InvalidStreamId};

/// The longest stream id, in bytes.
///
/// Together with an event id it stays below the 128 bytes up to which browsers send
/// `Last-Event-ID` cross-origin without a preflight only for short ids; longer names have no use.
pub const MAX_STREAM_ID: usize = 128;

/// The longest owner, in bytes.
pub const MAX_OWNER: usize = 256;

/// The name of a stream among its owner's streams: 1 to 128 bytes of `[A-Za-z0-9._~-]`.
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
    /// Checks and takes a name.
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

    /// A new name with 122 random bits, in the form of a version 4 UUID (RFC 9562 § 5.4).
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

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the library may have made up this name: it has the form that [`random`](Self::random) gives.
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

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "Owner({name:?})"),
            None => f.write_str("Owner(anonymous)"),
        }
    }
}

/// What a store files a stream under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// Whose stream it is.
    pub owner: Owner,
    /// Its name among the owner's streams.
    pub id: StreamId,
}

impl StreamKey {
    /// Puts owner and id together.
    #[must_use]
    pub fn new(owner: Owner, id: StreamId) -> Self {
        Self { owner, id }
    }
}

/// The id of an event within its stream: epoch and seq, strictly increasing, dense within an epoch.
///
/// Its text, wherever a client sees it, is `e<epoch>-<seq>`. No other system writes such ids, so an id that a host
/// gave an event itself is never taken for one of these.
///
/// The epoch counts producer runs; `seq` starts at 1, and 0 marks the start or the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    /// Which producer run.
    pub epoch: u64,
    /// Which event of that run.
    pub seq: u64,
}

impl EventId {
    /// Puts epoch and seq together.
    #[must_use]
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq }
    }

    /// The id of the terminal event of the run `epoch`, whoever closes it.
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

impl EventId {
    /// Reads `<epoch>-<seq>`: the form without the `e`, which is also that of a Redis stream's ids.
    pub(crate) fn from_pair(text: &str) -> Option<Self> {
        let (epoch, seq) = text.split_once('-')?;
        Some(Self::new(digits(epoch)?, digits(seq)?))
    }

    /// Writes `<epoch>-<seq>`: see [`from_pair`](Self::from_pair).
    #[cfg(feature = "redis")]
    pub(crate) fn to_pair(self) -> String {
        format!("{}-{}", self.epoch, self.seq)
    }
}

/// A canonical decimal number: no sign, no leading zero, so that one id has one spelling.
fn digits(text: &str) -> Option<u64> {
    let canonical = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// A text that is not an [`EventId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEventId;

impl fmt::Display for InvalidEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event id is `e`, two decimal numbers and a `-` between them, as in e1700000000000-7")
    }
}

impl std::error::Error for InvalidEventId {}

/// An event's name as a client sees it: with the stream's id in front where the library made that up.
///
/// An `EventSource` reconnects to the URL it was opened with, so only its cursor can name such a stream.
///
/// Cursors are ordered by their events: epochs rise with time, so the greater one is the newer one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) at: EventId,
    pub(crate) stream: Option<StreamId>,
}

impl Cursor {
    /// Reads a cursor; anything else than what [`CursorWriter`] writes is `None`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // Stream ids may hold dots, event ids do not.
        let (stream, at) = match text.rsplit_once('.') {
            Some((stream, at)) => (Some(StreamId::new(stream).ok()?), at),
            None => (None, text),
        };
        Some(Self { stream, at: at.parse().ok()? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stream {
            Some(stream) => write!(f, "{stream}.{}", self.at),
            None => self.at.fmt(f),
        }
    }
}

/// Writes events' ids in their wire form: what the ids of a run share is written once.
#[derive(Debug)]
pub(crate) struct CursorWriter {
    stream: Option<StreamId>,
    text: Vec<u8>,
    /// Whose ids begin with the text up to here.
    stem: Option<(u64, usize)>,
    /// The seq that was written last.
    seq: u64,
}

impl CursorWriter {
    /// For ids with this stream's in front.
    pub(crate) fn new(stream: Option<StreamId>) -> Self {
        Self { stream, text: Vec::new(), stem: None, seq: 0 }
    }

    /// The most bytes that the ids of a run may have.
    pub(crate) fn max_len(&self) -> usize {
        self.stream.as_ref().map_or(0, |stream| stream.as_str().len() + 1) + 2 * DIGITS + 2
    }

    /// The id of an event, until the next one is written.
    pub(crate) fn write(&mut self, id: EventId) -> &[u8] {
        let stem = self.stem.filter(|(epoch, _)| *epoch == id.epoch);
        let follows = stem.is_some() && self.seq.checked_add(1) == Some(id.seq);
        if !follows || !self.count_on() {
            match stem {
                Some((_, len)) => self.text.truncate(len),
                None => self.begin(id.epoch),
            }
            push_decimal(id.seq, &mut self.text);
        }
        self.seq = id.seq;
        &self.text
    }

    /// Mostly the next id differs by its last digit alone. `false`: it does not, and nothing was done.
    fn count_on(&mut self) -> bool {
        let last = self.text.last_mut().filter(|digit| **digit < b'9');
        last.map(|digit| *digit += 1).is_some()
    }

    fn begin(&mut self, epoch: u64) {
        self.text.clear();
        if let Some(stream) = &self.stream {
            self.text.extend_from_slice(stream.as_str().as_bytes());
            self.text.push(b'.');
        }
        self.text.push(b'e');
        push_decimal(epoch, &mut self.text);
        self.text.push(b'-');
        self.stem = Some((epoch, self.text.len()));
    }
}

/// Of the longest `u64`.
const DIGITS: usize = 20;

/// `fmt` costs more than the rest of delivering a small event.
fn push_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; DIGITS];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] += (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_keep_to_their_rule() {
        assert!(StreamId::new("Az09._~-").is_ok());
        assert_eq!(StreamId::new(""), Err(InvalidStreamId::Empty));
        assert!(StreamId::new("a".repeat(128)).is_ok());
        assert_eq!(StreamId::new("a".repeat(129)), Err(InvalidStreamId::TooLong { length: 129 }));
        assert_eq!(StreamId::new("ab\r\nX: y"), Err(InvalidStreamId::Character { position: 2 }));
        assert_eq!(StreamId::new("é"), Err(InvalidStreamId::Character { position: 0 }));
    }

    #[test]
    fn random_ids_are_version_4_uuids_with_122_random_bits() {
        let text = StreamId::from_random(u128::MAX).to_string();
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(StreamId::from_random(0).to_string(), "00000000-0000-4000-8000-000000000000");
        assert_ne!(StreamId::random(), StreamId::random());
        assert!(StreamId::random().is_made_up());
        for other in [
            "chat-42",
            "00000000-0000-1000-8000-000000000000",
            "00000000-0000-4000-c000-000000000000",
            "00000000-0000-4000-8000-00000000000A",
            "00000000-0000-4000-8000-0000000000000",
        ] {
            assert!(!StreamId::new(other).expect("valid").is_made_up(), "{other}");
        }
    }

    #[test]
    fn stream_ids_are_deserialised_by_their_rule() {
        assert_eq!(serde_json::from_str::<StreamId>(r#""a~b""#).expect("valid").as_str(), "a~b");
        assert_eq!(serde_json::from_str::<StreamId>(r#""a~b""#).expect("valid").as_str(), "a~b");
        let refused = serde_json::from_str::<StreamId>(r#""a/b""#).expect_err("a slash").to_string();
        assert!(refused.contains("[A-Za-z0-9._~-]"), "{refused}");
    }

    #[test]
    fn event_ids_have_one_spelling() {
        let mut writer = CursorWriter::new(None);
        let seqs = (0..=12).chain([8, 9, 98, 99, 100, 100, 99, 999, 1000, u64::MAX - 1, u64::MAX, 0]);
        for id in seqs.flat_map(|seq| [EventId::new(1, seq), EventId::new(1, seq), EventId::new(u64::MAX, seq)]) {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(writer.write(id), id.to_string().as_bytes());
        }
        for id in (0..2000).map(|seq| EventId::new(7, seq)) {
            assert_eq!(writer.write(id), id.to_string().as_bytes());
        }
        for bad in [
            "",
            "e",
            "e-",
            "e1",
            "e1-",
            "e-1",
            "e1-2-3",
            "e01-2",
            "e1-02",
            "e+1-2",
            "e1- 2",
            "ee1-2",
            "E1-2",
            "1-2",
            "0-0",
            "e1-18446744073709551616",
        ] {
            assert_eq!(bad.parse::<EventId>(), Err(InvalidEventId), "{bad:?}");
        }
    }

    #[test]
    fn a_cursor_names_its_stream_where_the_library_made_it_up() {
        let stream = StreamId::new("a.b").expect("valid");
        let mut writer = CursorWriter::new(Some(stream.clone()));
        let wire = str::from_utf8(writer.write(EventId::new(7, 8))).expect("text");
        let cursor = Cursor::parse(wire).expect("readable");
        assert_eq!(cursor, Cursor { stream: Some(stream), at: EventId::new(7, 8) });
        assert_eq!(Cursor::parse("e7-8").expect("readable").stream, None);
        for bad in ["7-8", "a.7-8", ".e7-8", "x y.e7-8", "e7-8.", "e7-8.e"] {
            assert_eq!(Cursor::parse(bad), None, "{bad:?}");
        }
    }
}
