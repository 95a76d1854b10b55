//! The wait that a server asks for with `Retry-After` (RFC 9110 § 10.2.3).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use httpdate::parse_http_date;

/// The longest wait that a server can ask for. The bound keeps a typing error from stopping a client for good.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Reads `Retry-After`, as seconds or as a date.
///
/// A date is compared with the response's own `Date`, since the client's clock may be wrong. If the response has no
/// valid `Date`, the date is compared with `now`.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large for a `u64` asks for more than the longest wait.
        text.parse().map_or(LONGEST_WAIT, Duration::from_secs)
    } else {
        let sent = headers.get(header::DATE).and_then(|date| parse_http_date(date.to_str().ok()?).ok());
        // A date that has passed asks for no wait.
        parse_http_date(text).ok()?.duration_since(sent.unwrap_or(now)).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const THEN: Duration = Duration::from_secs(784_111_777);

    fn wait(text: &'static str, date: Option<&'static str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
        if let Some(date) = date {
            headers.insert(header::DATE, HeaderValue::from_static(date));
        }
        retry_after(&headers, SystemTime::UNIX_EPOCH + THEN).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_dates_are_read() {
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::UNIX_EPOCH), None);
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("Fri, 01 Jan 2100 00:00:00 GMT", Some(3600)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(wait(text, None), expected, "{text:?}");
        }
    }

    #[test]
    fn a_date_is_read_by_the_servers_own_clock() {
        let (date, later) = ("Tue, 15 Nov 2044 08:00:00 GMT", "Tue, 15 Nov 2044 08:00:20 GMT");
        assert_eq!(wait(later, Some(date)), Some(20));
        assert_eq!(wait(later, Some("yesterday")), Some(3600));
    }
}
