//! The metadata that a host keeps with a stream: unique keys, bounded in bytes.

use std::fmt;

/// The limit on the bytes of keys and values kept with a stream.
pub(crate) const METADATA_BYTES: usize = 4096;

/// Key and value pairs that the host keeps with a stream, such as the id of a job.
pub type Metadata = Vec<(String, String)>;

/// Sets the value of a key, replacing an earlier value. Returns whether the metadata changed.
///
/// # Errors
///
/// The total number of bytes, if it would exceed [`METADATA_BYTES`]. The metadata is then left unchanged.
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

/// The error of adding more metadata to a stream than its limit of 4 KiB.
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
