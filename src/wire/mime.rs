//! Recognizes responses that are server-sent events.

/// Whether a `Content-Type` value means `text/event-stream`, in UTF-8.
///
/// Browsers refuse the type with another charset, so such a response is not claimed. Other parameters are ignored.
pub(super) fn is_event_stream(content_type: &str) -> bool {
    let (essence, parameters) = cut(content_type);
    essence.trim().eq_ignore_ascii_case("text/event-stream") && charset(parameters).is_none_or(is_utf8)
}

/// Returns the value of the first `charset` parameter, without quotes.
fn charset(mut parameters: &str) -> Option<&str> {
    while !parameters.is_empty() {
        let (parameter, rest) = cut(parameters);
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("charset")
        {
            return Some(value.trim().trim_matches('"'));
        }
        parameters = rest;
    }
    None
}

/// Cuts at the first semicolon that is not quoted.
fn cut(text: &str) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}

fn is_utf8(charset: &str) -> bool {
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_essence_counts() {
        for ours in [
            "text/event-stream",
            "Text/Event-Stream; charset=UTF-8",
            "text/event-stream;charset=\"utf-8\"",
            " text/event-stream ; x=1",
            "text/event-stream;",
            r#"text/event-stream; a="b\";charset=latin1"; charset=utf-8"#,
        ] {
            assert!(is_event_stream(ours), "{ours}");
        }
        for foreign in [
            "",
            ";",
            "text/event-streams",
            "text/html; x=text/event-stream",
            "text/event-stream, text/html",
            "text/event-stream; charset=windows-1251",
            "text/event-stream; CHARSET=latin1",
            "text/event-stream; charset=",
            r"text/event-stream; a=\; charset=latin1",
        ] {
            assert!(!is_event_stream(foreign), "{foreign}");
        }
    }
}
