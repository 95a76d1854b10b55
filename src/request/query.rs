//! Query strings and percent-encoding (RFC 3986 § 2.1).

use std::borrow::Cow;

use http::request::Parts;

/// A text that is not percent-encoded as RFC 3986 has it, or whose bytes are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undecodable;

/// The value of a query parameter, percent-decoded; the first of several.
pub(crate) fn parameter(request: &Parts, name: &str) -> Option<String> {
    let (_, value) = pairs(request.uri.query()?).find(|(key, _)| **key == *name.as_bytes())?;
    Some(String::from_utf8_lossy(&value).into_owned())
}

/// All values of a query parameter, percent-decoded.
pub(crate) fn parameters<'a>(request: &'a Parts, name: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    let pairs = pairs(request.uri.query().unwrap_or_default());
    pairs.filter(move |(key, _)| **key == *name.as_bytes()).map(|(_, value)| value)
}

/// The pairs of a query string, percent-decoded. A `+` stands for itself.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query.split('&').map(pair)
}

/// A part of a query string as key and value, percent-decoded.
pub(super) fn pair(text: &str) -> (Cow<'_, [u8]>, Cow<'_, [u8]>) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (leniently_decoded(key), leniently_decoded(value))
}

/// Decodes a part of a path.
pub(crate) fn decoded(text: &str) -> Result<Cow<'_, str>, Undecodable> {
    let Some(bytes) = decode(text, |_| Err(Undecodable))? else { return Ok(Cow::Borrowed(text)) };
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Undecodable)
}

/// Decodes a text in which a `%` that begins no encoded byte stays as it is.
fn leniently_decoded(text: &str) -> Cow<'_, [u8]> {
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

    fn parts(uri: &str) -> Parts {
        http::Request::get(uri).body(()).expect("a request").into_parts().0
    }

    #[test]
    fn query_parameters_are_decoded() {
        let request = parts("/?x=1&cursor=5%2D6&cursor=no&bad=%zz%4&sign=%+5&na%6De=v&plus=a+b");
        assert_eq!(parameter(&request, "cursor").as_deref(), Some("5-6"), "the first of several");
        assert_eq!(parameter(&request, "bad").as_deref(), Some("%zz%4"));
        assert_eq!(parameter(&request, "sign").as_deref(), Some("%+5"));
        assert_eq!(parameter(&request, "name").as_deref(), Some("v"));
        assert_eq!(parameter(&request, "plus").as_deref(), Some("a+b"), "`+` is not a blank");
        assert_eq!(parameter(&request, "missing"), None);
    }

    #[test]
    fn a_path_is_decoded_or_refused() {
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
