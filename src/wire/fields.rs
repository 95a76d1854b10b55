//! Reads the payload of an event: its type, its JSON, and the two fields of a completion.
//!
//! JSON is passed on as the producer wrote it, so that long numbers, the order of keys and white space are preserved.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Framing;
use crate::model::stream::Ending;

/// The type and data of an event, read in the same way by recovery, the store's completions and the clients.
pub(crate) struct EventFields {
    /// The event's name; without one the `type` of the payload; without that `message`.
    pub(crate) kind: String,
    pub(crate) data: String,
}

impl EventFields {
    pub(crate) fn of(framing: &dyn Framing, block: &[u8]) -> Self {
        let event = framing.view(block);
        let named = event.name.map(Cow::into_owned);
        let data = event.data.into_owned();
        let kind = named.or_else(|| payload_type(&data)).unwrap_or_else(|| "message".to_owned());
        Self { kind, data }
    }

    /// Returns the data as JSON; `None` if it is not JSON that every reader can parse, see [`is_portable`].
    pub(crate) fn json(&self) -> Option<&RawValue> {
        serde_json::from_str(&self.data).ok().filter(|json: &&RawValue| is_portable(json.get()))
    }
}

/// Returns the `terminalEventType` and `terminalEventData` of a completion, for recovery's answers and for stores.
///
/// A payload that is exactly a `{type, data}` envelope is unwrapped. Any other payload is returned whole.
pub(crate) fn terminal(framing: &dyn Framing, ending: &Ending) -> (String, Box<RawValue>) {
    let Some(block) = &ending.event else {
        return (ending.state.to_string(), raw(&serde_json::json!({ "reason": ending.reason.as_deref() })));
    };
    let fields = EventFields::of(framing, block);
    let data = match fields.json() {
        Some(json) => envelope(json.get()).unwrap_or(json).to_owned(),
        None => raw(&fields.data),
    };
    (fields.kind, data)
}

/// Returns the `data` of a `{type, data}` envelope.
fn envelope(json: &str) -> Option<&RawValue> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Envelope<'a> {
        #[serde(borrow, rename = "type")]
        _kind: Cow<'a, str>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    // `serde` would also accept an array with the fields in this order.
    json.starts_with('{')
        .then(|| serde_json::from_str::<Envelope<'_>>(json).ok())
        .flatten()
        .map(|envelope| envelope.data)
}

/// Serializes one of the library's own values.
fn raw(value: &impl serde::Serialize) -> Box<RawValue> {
    // Serializing strings and maps of strings cannot fail.
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The deepest nesting of values. With the levels that an answer adds around them, it stays within every reader's
/// limit.
const DEPTH: usize = 100;

/// Whether every JSON reader can parse this valid JSON: it is not nested too deep, and no escape is half of a surrogate
/// pair (RFC 8259 § 8.2). Otherwise a single event could make a whole answer unreadable.
fn is_portable(json: &str) -> bool {
    let (mut depth, mut quoted) = (0_usize, false);
    let mut rest = json.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if rest.first() == Some(&b'u') => match after_escape(rest) {
                Some(after) => rest = after,
                None => return false,
            },
            b'\\' => rest = rest.get(1..).unwrap_or_default(),
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH {
            return false;
        }
    }
    true
}

/// Returns the text after an escape, whose `u` is the first byte of `text`; `None` if it is half of a surrogate pair.
fn after_escape(text: &[u8]) -> Option<&[u8]> {
    let unit = |text: &[u8]| u16::from_str_radix(std::str::from_utf8(text.get(1..5)?).ok()?, 16).ok();
    let tail = text.get(5..)?;
    match unit(text)? {
        0xD800..=0xDBFF => {
            let low = tail.strip_prefix(b"\\").and_then(unit)?;
            (0xDC00..=0xDFFF).contains(&low).then(|| tail.get(6..)).flatten()
        }
        0xDC00..=0xDFFF => None,
        _ => Some(tail),
    }
}

/// Returns the `type` of a JSON object.
pub(crate) fn payload_type(data: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
    }
    // `serde` would also accept an array with the fields in this order.
    if !data.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str::<Typed<'_>>(data).ok()?.kind.map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{
            event::Event,
            stream::{StreamState, reason},
        },
        wire::Sse,
    };

    fn fields(data: &str) -> EventFields {
        EventFields { kind: String::new(), data: data.to_owned() }
    }

    fn terminal_of(data: &str) -> (String, String) {
        let block = Sse.encode(&Event::new(data)).expect("no carriage returns");
        let (kind, data) = terminal(&Sse, &Ending::with_event(StreamState::Completed, block));
        (kind, data.get().to_owned())
    }

    #[test]
    fn json_stays_as_it_was_written() {
        let written = r#"{"z":1,"a":123456789012345678901234,"f":1.10,"e":1e400,"t":"\u00e9"}"#;
        assert_eq!(fields(written).json().expect("JSON").get(), written);
        assert_eq!(terminal_of(written), ("message".to_owned(), written.to_owned()));
        let wrapped = format!(r#"{{"type":"completed","data":{written}}}"#);
        assert_eq!(terminal_of(&wrapped), ("completed".to_owned(), written.to_owned()));
        let turned = format!(r#"{{ "data" : {written} , "type" : "comp\u006ceted" }}"#);
        assert_eq!(terminal_of(&turned), ("completed".to_owned(), written.to_owned()));
    }

    #[test]
    fn only_an_envelope_is_unwrapped() {
        for whole in [
            r#"{"type":"completed","data":1,"usage":2}"#,
            r#"{"type":5,"data":1}"#,
            r#"{"type":null,"data":1}"#,
            r#"{"data":1}"#,
            r#"["completed",1]"#,
        ] {
            assert_eq!(terminal_of(whole).1, whole);
        }
        assert_eq!(terminal_of(r#"{"type":"completed","data":null}"#).1, "null");
        assert_eq!(terminal_of("plain").1, r#""plain""#);
        let supplied = Ending::supplied(StreamState::Failed, reason::EOF);
        assert_eq!(terminal(&Sse, &supplied).1.get(), r#"{"reason":"eof"}"#);
    }

    #[test]
    fn what_some_readers_cannot_read_is_text() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for json in
            [deep(100), r#""\ud83d\ude00""#.to_owned(), r#"["[[\"[[\\u","]"]"#.to_owned(), "\"\u{1f600}\"".to_owned()]
        {
            assert!(fields(&json).json().is_some(), "{json}");
        }
        // Brackets in texts and brackets that are closed again are no depth.
        let flat = [format!("{:?}", "[".repeat(101)), format!("[{}1]", "[],".repeat(101))];
        for json in flat {
            assert!(fields(&json).json().is_some(), "{json}");
        }
        let half = "[".repeat(60);
        for text in [
            deep(101),
            format!("{half}{:?},{half}{}", "]".repeat(60), "]".repeat(120)),
            deep(100_000),
            r#""\ud83d""#.to_owned(),
            r#""\ud83dx""#.to_owned(),
            r#""\ud83d\u0041""#.to_owned(),
            r#"{"\ude00":1}"#.to_owned(),
            "{".to_owned(),
            String::new(),
        ] {
            assert!(fields(&text).json().is_none(), "{text:.40}");
            assert_eq!(serde_json::from_str::<String>(&terminal_of(&text).1).expect("a text"), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_given_as_json_can_be_read(data in "[\\[\\]{}\",:\\\\ude80d81x0-9 a.]{0,24}") {
            if let Some(json) = fields(&data).json() {
                prop_assert_eq!(json.get(), data.trim_matches([' ', '\n', '\t', '\r']));
                // `serde_json` reports a number out of range as an error, although the text is valid JSON.
                if let Err(error) = serde_json::from_str::<serde_json::Value>(json.get()) {
                    prop_assert!(error.to_string().contains("number out of range"), "{}: {}", data, error);
                }
            }
            let given = terminal_of(&data.replace('\r', ""));
            prop_assert!(serde_json::from_str::<&RawValue>(&given.1).is_ok());
        }
    }
}
