//! Percent-decoding that refuses malformed input (RFC 3986 § 2.1).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The error of decoding a text that is not valid percent-encoding (RFC 3986 § 2.1), or not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undecodable;

/// Decodes a text.
///
/// The text is checked first, because `percent-encoding` decodes leniently: it keeps a `%` that is not followed by two
/// hexadecimal digits, so that two spellings would name one stream.
///
/// # Errors
///
/// [`Undecodable`] if the text is not percent-encoded UTF-8.
pub(crate) fn decoded(text: &str) -> Result<Cow<'_, str>, Undecodable> {
    let encodes = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(encodes) {
        return Err(Undecodable);
    }
    percent_decode_str(text).decode_utf8().map_err(|_| Undecodable)
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
        for bad in ["%", "a%", "%4", "%zz", "%+1", "%%41", "%ff", "%e9", "%4é"] {
            assert_eq!(decoded(bad), Err(Undecodable), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn encoding_is_undone(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(decoded(&encoded).ok().map(Cow::into_owned), String::from_utf8(bytes).ok());
        }
    }
}
