//! What a host keeps with a stream: within one bound, each key once.

use std::fmt;

/// The most bytes of keys and values that are kept with a stream.
pub(crate) const METADATA_BYTES: usize = 4096;

/// Key and value pairs that the host keeps with a stream, such as the id of a job.
pub type Metadata = Vec<(String, String)>;

/// Keeps a value under a key, in place of the one before. Returns whether that changed anything.
///
/// # Errors
///
/// How many bytes of keys and values there would be, where that is more than may be held; nothing is changed then.
pub(crate) fn keep(held: &mut Metadata, key: String, value: String) -> Result<bool, usize> {
    let others = held.iter().filter(|(other, _)| *other != key);
    let bytes = others.map(|(key, value)| key.len() + value.len()).sum::<usize>() + key.len() + value.len();
    if bytes > METADATA_BYTES {
        return Err(bytes);
    }
    match held.iter_mut().find(|(other, _)| *other == key) {
        Some((_, same)) if *same == value => return Ok(false),
        Some((_, replaced)) => *replaced = value,
        None => held.push((key, value)),
    }
    Ok(true)
}

/// More was to be kept with a stream than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataTooLarge {
    pub(crate) bytes: usize,
}

impl fmt::Display for MetadataTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a stream keeps at most {METADATA_BYTES} bytes of metadata; this would be {}", self.bytes)
    }
}

impl std::error::Error for MetadataTooLarge {}
