//! What a host keeps with a stream: within one bound, each key once.

use crate::{config::METADATA_BYTES, stream::Metadata};

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
