//! Query strings (RFC 3986 § 3.4).

use std::borrow::Cow;

use http::request::Parts;
use percent_encoding::percent_decode_str;

/// Returns the first value of a query parameter, percent-decoded.
pub(crate) fn parameter(request: &Parts, name: &str) -> Option<String> {
    let (_, value) = pairs(request.uri.query()?).find(|(key, _)| **key == *name.as_bytes())?;
    Some(String::from_utf8_lossy(&value).into_owned())
}

/// Returns all values of a query parameter, percent-decoded.
pub(crate) fn parameters<'a>(request: &'a Parts, name: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    let pairs = pairs(request.uri.query().unwrap_or_default());
    pairs.filter(move |(key, _)| **key == *name.as_bytes()).map(|(_, value)| value)
}

/// Returns the pairs of a query string, percent-decoded. A `+` stands for itself, since a cursor may hold one. For that
/// reason `form_urlencoded` cannot be used: it decodes `+` as a blank.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query.split('&').map(pair)
}

/// Splits a part of a query string into key and value, percent-decoded.
pub(crate) fn pair(text: &str) -> (Cow<'_, [u8]>, Cow<'_, [u8]>) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (percent_decode_str(key).into(), percent_decode_str(value).into())
}

#[cfg(test)]
mod tests {
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
}
