//! The `Accept` header of a request (RFC 9110 § 12.5.1).
//!
//! Libraries for media types refuse a whole list if one range is malformed. This parser ignores that range alone.

use http::{Method, header, request::Parts};

const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";

/// Whether a request is a GET that accepts `text/event-stream` by name, not only `*/*`. Every `EventSource` does so.
/// Such a client reconnects after a response that breaks off.
pub(crate) fn asks_by_name(request: &Parts) -> bool {
    request.method == Method::GET && Accepted::of(request).events.is_some_and(|range| range.quality > 0)
}

/// Whether a request prefers an event stream to JSON.
///
/// The request must name `text/event-stream` with a higher quality than JSON has. With equal qualities the type that is
/// named first wins, and a named type beats `*/*`. MCP clients send `application/json, text/event-stream`, and get
/// JSON.
pub(crate) fn prefers_events(request: &Parts) -> bool {
    let Accepted { events, json, wildcard, .. } = Accepted::of(request);
    let Some(events) = events.filter(|range| range.quality > 0) else { return false };
    match json {
        Some(json) => (events.quality, json.place) > (json.quality, events.place),
        None => events.quality >= wildcard.map_or(0, |range| range.quality),
    }
}

/// The ranges of a request's `Accept` for the two types that the library answers with.
#[derive(Default)]
struct Accepted {
    events: Option<Range>,
    json: Option<Range>,
    /// The range that covers JSON without naming it: `application/*`, else `*/*`.
    wildcard: Option<Range>,
}

#[derive(Clone, Copy)]
struct Range {
    /// The quality in thousandths. 0 means "not acceptable".
    quality: u16,
    /// The index of the first range of this type among all.
    place: usize,
}

impl Accepted {
    fn of(request: &Parts) -> Self {
        let mut accepted = Self::default();
        let mut any = None;
        let lines = request.headers.get_all(header::ACCEPT).iter();
        let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect::<Vec<_>>();
        for (place, range) in lines.iter().flat_map(|line| split(line, b',')).enumerate() {
            let mut parts = split(range, b';');
            let name = parts.next().unwrap_or_default();
            let slot = match name {
                _ if name.eq_ignore_ascii_case(EVENTS) => &mut accepted.events,
                _ if name.eq_ignore_ascii_case(JSON) => &mut accepted.json,
                _ if name.eq_ignore_ascii_case("application/*") => &mut accepted.wildcard,
                "*/*" => &mut any,
                _ => continue,
            };
            let quality = parts.find_map(weight).unwrap_or(FULL);
            match slot {
                Some(range) => range.quality = range.quality.max(quality),
                None => *slot = Some(Range { quality, place }),
            }
        }
        accepted.wildcard = accepted.wildcard.or(any);
        accepted
    }
}

/// The quality of a range without a `q` parameter.
const FULL: u16 = 1000;

/// Returns the quality of a well-formed `q` parameter, in thousandths.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value = value.trim();
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if whole.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || fraction.contains('.') {
        return None;
    }
    if whole.bytes().any(|byte| byte != b'0') {
        return Some(FULL);
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = digits.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    // RFC 9110 allows three digits. A range with more is still acceptable if one of the others is not 0.
    Some(if fraction.bytes().any(|byte| byte != b'0') { thousandths.max(1) } else { thousandths })
}

/// Splits a text at the separators outside of quotes, and trims blanks from the parts.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| match byte {
            _ if escaped => {
                escaped = false;
                false
            }
            b'\\' => {
                escaped = quoted;
                false
            }
            b'"' => {
                quoted = !quoted;
                false
            }
            _ => byte == separator && !quoted,
        });
        let (part, tail) = match end {
            Some(end) => (&text[..end], Some(&text[end + 1..])),
            None => (text, None),
        };
        rest = tail;
        Some(part.trim_matches([' ', '\t']))
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};
    use proptest::prelude::*;

    use super::*;

    fn request(method: &Method, lines: &[&str]) -> Parts {
        let mut request = Request::builder().method(method).uri("/").body(()).expect("a request");
        for line in lines {
            request.headers_mut().append(header::ACCEPT, HeaderValue::from_bytes(line.as_bytes()).expect("a value"));
        }
        request.into_parts().0
    }

    #[test]
    fn an_event_source_asks_by_name() {
        for lines in [
            &["text/event-stream"][..],
            &["Text/Event-Stream"],
            &["text/event-stream; charset=utf-8"],
            &["application/json, text/event-stream"],
            &["application/json", "text/event-stream;q=0.1"],
            &["text/event-stream;q=0.0001"],
            &["text/event-stream;q=0, text/event-stream"],
            &["text/event-stream;q=nonsense"],
            &[" text/event-stream ;\tQ=1.000"],
            &["a/b;x=\"\\\",\", text/event-stream"],
        ] {
            assert!(asks_by_name(&request(&Method::GET, lines)), "{lines:?}");
            assert!(!asks_by_name(&request(&Method::POST, lines)), "{lines:?}");
        }
        for lines in [
            &[][..],
            &[""],
            &["*/*"],
            &["text/*"],
            &["text/event-stream-foo"],
            &["x-text/event-stream"],
            &["text/event-stream;q=0"],
            &["text/event-stream; q=0.000"],
            &["application/json;x=text/event-stream"],
            &["a/b;x=\", text/event-stream\""],
            &["\"text/event-stream\""],
        ] {
            assert!(!asks_by_name(&request(&Method::GET, lines)), "{lines:?}");
        }
    }

    #[test]
    fn recovery_is_json_unless_events_are_preferred() {
        for lines in [
            &["text/event-stream"][..],
            &["text/event-stream, */*"],
            &["*/*, text/event-stream"],
            &["text/event-stream, application/json"],
            &["application/json;q=0.9, text/event-stream"],
            &["text/event-stream;q=0.2, application/json;q=0.1"],
            &["text/event-stream;q=0.2", "*/*;q=0.1"],
            &["application/json;q=0, text/event-stream;q=0.1"],
            &["TEXT/EVENT-STREAM"],
        ] {
            assert!(prefers_events(&request(&Method::GET, lines)), "{lines:?}");
        }
        for lines in [
            &[][..],
            &["*/*"],
            &["text/*"],
            &["application/json"],
            &["application/json, text/event-stream"],
            &["application/json, text/event-stream;q=0"],
            &["text/event-stream;q=0"],
            &["text/event-stream;q=0.5, application/json"],
            &["text/event-stream;q=0.5, */*"],
            &["text/event-stream;q=0.5, application/*, */*;q=0.1"],
            &["application/json", "text/event-stream"],
            &["text/event-stream-foo"],
        ] {
            assert!(!prefers_events(&request(&Method::GET, lines)), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn what_names_no_event_stream_never_asks_for_one(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let named = String::from_utf8_lossy(&bytes).to_ascii_lowercase().contains(EVENTS);
            let mut parts = request(&Method::GET, &[]);
            parts.headers.insert(header::ACCEPT, value);
            prop_assert!(named || !(asks_by_name(&parts) || prefers_events(&parts)));
        }

        #[test]
        fn the_higher_quality_wins(events in 0_u16..=1000, json in 0_u16..=1000, first in any::<bool>()) {
            let range = |name: &str, quality: u16| format!("{name};q={}.{:03}", quality / 1000, quality % 1000);
            let mut ranges = [range(EVENTS, events), range(JSON, json)];
            if !first {
                ranges.reverse();
            }
            let parts = request(&Method::GET, &[&ranges.join(", ")]);
            prop_assert_eq!(asks_by_name(&parts), events > 0);
            prop_assert_eq!(prefers_events(&parts), events > 0 && (events > json || events == json && first));
        }
    }
}
