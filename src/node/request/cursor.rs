//! The cursor of a request: the last event that the client saw.

use http::{HeaderValue, Uri, request::Parts, uri::PathAndQuery};

use super::query::{pair, pairs};
use crate::{model::id::StreamId, node::headers::LAST_EVENT_ID, protocol::cursor::LastSeen};

/// Reads the cursor of a request for the stream `own`. With `None`, only the cursor itself can name the stream.
///
/// A browser sends the header `Last-Event-ID`. Clients that cannot set a header, and polyfills of `EventSource`, send a
/// query parameter.
pub(crate) fn last_seen(request: &Parts, own: Option<&StreamId>) -> LastSeen {
    let headers = request.headers.get_all(LAST_EVENT_ID).iter().map(HeaderValue::as_bytes);
    let query = pairs(request.uri.query().unwrap_or_default());
    LastSeen::of(headers, query.filter(|(name, _)| is_cursor(name)).map(|(_, value)| value), own)
}

/// Whether a query parameter of this name holds a cursor.
fn is_cursor(name: &[u8]) -> bool {
    matches!(name, b"last_event_id" | b"lastEventId") || name.eq_ignore_ascii_case(LAST_EVENT_ID.as_str().as_bytes())
}

/// Returns the target for the inner service's request, without the library's own cursors in its query, which mean
/// nothing to the inner service. Any other parameter stays, even a foreign cursor. `None`: the target need not change.
pub(crate) fn inner_target(target: &Uri) -> Option<Uri> {
    let query = target.query()?;
    let is_own = |part: &&str| {
        let (name, value) = pair(part);
        is_cursor(&name) && matches!(LastSeen::parse(&value, None), LastSeen::Live | LastSeen::Event(_))
    };
    query.split('&').find(is_own)?;
    let kept: Vec<_> = query.split('&').filter(|part| !is_own(part)).collect();
    let path = target.path();
    let text = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    let mut parts = target.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::model::id::{Cursor, CursorWriter, EventId};

    fn request(headers: &[&[u8]], uri: &str) -> Parts {
        let mut request = Request::get(uri).body(()).expect("a request");
        for value in headers {
            request.headers_mut().append(LAST_EVENT_ID, HeaderValue::from_bytes(value).expect("a value"));
        }
        request.into_parts().0
    }

    fn event(text: &str) -> LastSeen {
        LastSeen::Event(Cursor::parse(text).expect("a cursor"))
    }

    fn seen(headers: &[&str], uri: &str) -> LastSeen {
        let headers: Vec<_> = headers.iter().map(|value| value.as_bytes()).collect();
        last_seen(&request(&headers, uri), None)
    }

    #[test]
    fn a_cursor_is_read_wherever_clients_put_it() {
        assert_eq!(seen(&[], "/"), LastSeen::Nothing);
        assert_eq!(seen(&["e5-6"], "/"), event("e5-6"));
        for name in ["last_event_id", "lastEventId", "Last-Event-ID", "last-event-id", "last%5Fevent%5fid"] {
            assert_eq!(seen(&[], &format!("/?a=b&{name}=e5%2D6")), event("e5-6"), "{name}");
        }
        for uri in ["/?lasteventid=e5-6", "/?last_event_ids=e5-6", "/?LAST_EVENT_ID=e5-6", "/e5-6"] {
            assert_eq!(seen(&[], uri), LastSeen::Nothing, "{uri}");
        }
    }

    #[test]
    fn an_empty_cursor_is_none() {
        assert_eq!(seen(&[""], "/"), LastSeen::Nothing);
        assert_eq!(seen(&[], "/?last_event_id=&lastEventId"), LastSeen::Nothing);
        assert_eq!(seen(&[""], "/?last_event_id=e5-6"), event("e5-6"));
        assert_eq!(seen(&["e5-6"], "/?last_event_id="), event("e5-6"));
        assert_eq!(seen(&[""], "/?last_event_id=$"), LastSeen::Live);
    }

    #[test]
    fn one_that_can_be_read_beats_the_dollar_which_beats_one_that_cannot() {
        assert_eq!(seen(&["gibberish"], "/?last_event_id=$"), LastSeen::Live);
        assert_eq!(seen(&["$"], "/?last_event_id=gibberish"), LastSeen::Live);
        assert_eq!(seen(&["$"], "/?last_event_id=e5-6"), event("e5-6"));
        assert_eq!(seen(&["e5-6"], "/?last_event_id=$"), event("e5-6"));
        assert_eq!(seen(&["gibberish", "e5-6", "$"], "/"), event("e5-6"));
        assert_eq!(seen(&["gibberish"], "/?lastEventId="), LastSeen::Unreadable);
    }

    #[test]
    fn of_several_of_one_stream_the_greater_counts() {
        assert_eq!(seen(&["e5-6", "e5-10"], "/"), event("e5-10"));
        assert_eq!(seen(&["e5-10", "e5-6"], "/"), event("e5-10"));
        assert_eq!(seen(&[], "/?last_event_id=e5-6&lastEventId=e5-10&last_event_id=e5-7"), event("e5-10"));
        assert_eq!(seen(&["e5-6"], "/?last_event_id=e6-1"), event("e6-1"));
        assert_eq!(seen(&["a.e5-6"], "/?last_event_id=a.e5-7&last_event_id=b.e9-9"), event("a.e5-7"));
    }

    #[test]
    fn of_different_streams_the_header_counts() {
        assert_eq!(seen(&["a.e5-6"], "/?last_event_id=b.e9-9"), event("a.e5-6"));
        assert_eq!(seen(&["a.e5-6"], "/?last_event_id=e9-9"), event("a.e5-6"));
        assert_eq!(seen(&["e5-6"], "/?last_event_id=b.e9-9"), event("e5-6"));
    }

    #[test]
    fn a_stream_s_own_name_in_front_makes_no_difference() {
        let own = StreamId::new("own").expect("valid");
        let seen = |headers: &[&[u8]], uri: &str| last_seen(&request(headers, uri), Some(&own));
        assert_eq!(seen(&[b"own.e5-6"], "/"), event("e5-6"));
        assert_eq!(seen(&[b"own.e5-6"], "/?last_event_id=e5-7"), event("e5-7"));
        assert_eq!(seen(&[b"other.e5-6"], "/"), event("other.e5-6"));
    }

    #[test]
    fn the_inner_service_gets_its_query_without_our_cursors() {
        let inner = |uri: &str| inner_target(&uri.parse().expect("a target")).map(|uri| uri.to_string());
        assert_eq!(inner("/s?a=1&last_event_id=e5-6&b=%41").as_deref(), Some("/s?a=1&b=%41"));
        assert_eq!(inner("http://h/s?lastEventId=a.e5-6").as_deref(), Some("http://h/s"));
        assert_eq!(inner("/s?last_event_id=$&last_event_id=own-7").as_deref(), Some("/s?last_event_id=own-7"));
        for same in ["/s", "/s?a=1", "/s?last_event_id=own-7", "/s?last_event_id=", "/s?x=e5-6"] {
            assert_eq!(inner(same), None, "{same}");
        }
    }

    /// Texts that are, or almost are, cursors of ours or of others.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            6 => prop::sample::select(vec![
                "e", "$", "-", ".", "0", "7", "1700000000000", "18446744073709551615", "18446744073709551616", "0-0", "a",
                "own", "00000000-0000-4000-8000-000000000000", "%", "+", " ", ",", "E", "é",
            ])
            .prop_map(|piece| piece.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    fn name() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["last_event_id", "lastEventId", "Last-Event-ID", "other", "last%5Fevent%5Fid", ""])
    }

    fn encoded(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_nothing_foreign_is_taken_for_ours(
            headers in prop::collection::vec(text(), 0..4),
            query in prop::collection::vec((name(), text(), any::<bool>()), 0..4),
        ) {
            let headers: Vec<_> = headers.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()).collect();
            let values = |encode: bool, value: &[u8]| {
                let printable = value.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-$%+,".contains(byte));
                if encode || !printable { encoded(value) } else { String::from_utf8_lossy(value).into_owned() }
            };
            let query: Vec<_> = query.iter().map(|(name, value, raw)| format!("{name}={}", values(!raw, value))).collect();
            let mut request = Request::get(format!("/?{}", query.join("&"))).body(()).expect("a request");
            for value in &headers {
                request.headers_mut().append(LAST_EVENT_ID, value.clone());
            }
            let _ = inner_target(request.uri());
            let (parts, ()) = request.into_parts();
            if let LastSeen::Event(cursor) = last_seen(&parts, None) {
                // Only what this library writes reads as an event, and it reads as the event that it was written for.
                let mut writer = CursorWriter::new(cursor.stream);
                let wire = writer.write(cursor.at).to_vec();
                let in_query = pairs(parts.uri.query().unwrap_or_default()).any(|(_, value)| *value == *wire);
                prop_assert!(in_query || headers.iter().any(|value| value.as_bytes() == wire));
            }
        }

        #[test]
        fn what_was_written_is_read_back(epoch in any::<u64>(), seq in any::<u64>(), named in any::<Option<u128>>()) {
            let stream = named.map(StreamId::from_random);
            let mut writer = CursorWriter::new(stream.clone());
            let wire = writer.write(EventId::new(epoch, seq)).to_vec();
            let expected = LastSeen::Event(Cursor { stream, at: EventId::new(epoch, seq) });
            prop_assert_eq!(last_seen(&request(&[&wire], "/"), None), expected.clone());
            let uri = format!("/?last_event_id={}", encoded(&wire));
            prop_assert_eq!(last_seen(&request(&[], &uri), None), expected);
        }

        #[test]
        fn ids_of_other_systems_are_unreadable(milliseconds in any::<u64>(), seq in any::<u64>(), name in any::<u128>()) {
            let uuid = StreamId::from_random(name);
            for foreign in [
                format!("{milliseconds}-{seq}"),
                format!("{milliseconds}"),
                format!("{uuid}"),
                format!("{uuid}-{seq}"),
                format!("{uuid}.{milliseconds}-{seq}"),
                format!("${seq}"),
                format!("E{milliseconds}-{seq}"),
                format!("e{milliseconds}"),
                format!("e0{milliseconds}-{seq}"),
                format!(" e{milliseconds}-{seq}"),
                format!("e{milliseconds}-{seq},e{milliseconds}-{seq}"),
            ] {
                let sent = last_seen(&request(&[foreign.as_bytes()], "/"), None);
                prop_assert_eq!(sent, LastSeen::Unreadable, "{}", foreign);
            }
        }
    }
}
