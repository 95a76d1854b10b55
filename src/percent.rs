//! Percent-encoding (RFC 3986 § 2.1).

use std::borrow::Cow;

/// A text that is not percent-encoded as RFC 3986 has it, or whose bytes are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undecodable;

/// Decodes a text.
///
/// # Errors
///
/// [`Undecodable`], if it is not percent-encoded UTF-8.
pub(crate) fn decoded(text: &str) -> Result<Cow<'_, str>, Undecodable> {
    let Some(bytes) = decode(text, |_| Err(Undecodable))? else { return Ok(Cow::Borrowed(text)) };
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Undecodable)
}

/// Decodes a text in which a `%` that begins no encoded byte stays as it is.
pub(crate) fn leniently_decoded(text: &str) -> Cow<'_, [u8]> {
    match decode(text, Ok::<_, std::convert::Infallible>) {
        Ok(Some(bytes)) => Cow::Owned(bytes),
        Ok(None) => Cow::Borrowed(text.as_bytes()),
        Err(never) => match never {},
    }
}

/// The decoded bytes; `None` where nothing is encoded. `stray` decides what a `%` becomes that begins no encoded byte.
fn decode<E>(text: &str, stray: impl Fn(u8) -> Result<u8, E>) -> Result<Option<Vec<u8>>, E> {
    if !text.contains('%') {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, hex(tail)) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            (b'%', None) => {
                bytes.push(stray(byte)?);
                rest = tail;
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    Ok(Some(bytes))
}

/// The byte that two hexadecimal digits at the beginning stand for.
fn hex(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_decoded_or_refused() {
        assert_eq!(decoded("a%7Eb").as_deref(), Ok("a~b"));
        assert_eq!(decoded("a%7eb").as_deref(), Ok("a~b"));
        assert_eq!(decoded("plain").as_deref(), Ok("plain"));
        for bad in ["%", "a%", "%4", "%zz", "%+1", "%%41", "%ff", "%e9"] {
            assert_eq!(decoded(bad), Err(Undecodable), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn encoding_is_undone(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(&*leniently_decoded(&encoded), &bytes[..]);
            prop_assert_eq!(decoded(&encoded).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
