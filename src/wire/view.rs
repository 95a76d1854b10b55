//! Reads the fields of a block.

use std::borrow::Cow;

use super::lines::{Field, Lines, delay, valid_id};

/// The fields of an event. A field is borrowed from the block if it is one line of valid UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventView<'a> {
    /// The event's name; `None` if it has no name or an empty one. Clients call such an event `message`.
    pub name: Option<Cow<'a, str>>,
    /// The data lines, joined by line feeds. Invalid UTF-8 becomes U+FFFD.
    pub data: Cow<'a, str>,
    /// The inner id, if the event sets one. An empty id resets the client's last event id.
    pub id: Option<Cow<'a, str>>,
    /// The reconnect delay in milliseconds, if the event sets one.
    pub retry: Option<u64>,
}

/// Reads a block of server-sent events. The last of several names, ids or delays counts.
pub(super) fn view(block: &[u8]) -> EventView<'_> {
    let (mut name, mut id, mut retry) = (None, None, None);
    let mut data: Option<Cow<'_, [u8]>> = None;
    for line in Lines::of(block) {
        match Field::of(line.text) {
            Field::Event(value) => name = Some(value),
            Field::Data(value) => match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(data) => {
                    let data = data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            Field::Id(value) if valid_id(value) => id = Some(value),
            Field::Retry(value) => retry = delay(value).or(retry),
            Field::Id(_) | Field::Comment(_) | Field::Unknown => {}
        }
    }
    EventView {
        name: name.filter(|name| !name.is_empty()).map(String::from_utf8_lossy),
        data: data.map(text).unwrap_or_default(),
        id: id.map(String::from_utf8_lossy),
        retry,
    }
}

fn text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(owned_text(bytes)),
    }
}

/// Converts bytes to text. Invalid UTF-8 becomes U+FFFD.
pub(super) fn owned_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_borrowed() {
        let event = view(b"event: n\ndata: x\nid: 7\n");
        assert!(matches!(event.data, Cow::Borrowed("x")));
        assert!(matches!(event.name, Some(Cow::Borrowed("n"))));
        assert!(matches!(event.id, Some(Cow::Borrowed("7"))));
    }

    #[test]
    fn the_last_of_a_field_counts() {
        let event =
            view(b"event: a\nevent: b\r\nid: 1\rid: 2\nid: \0\nretry: 5\nretry: x\ndata: a\xff\ndata\ndata:b\n");
        let expected =
            EventView { name: Some("b".into()), data: "a\u{fffd}\n\nb".into(), id: Some("2".into()), retry: Some(5) };
        assert_eq!(event, expected);
    }

    #[test]
    fn an_empty_name_is_none_and_an_empty_id_is_one() {
        let event = view(b"event: a\nevent\nid\ndata\n");
        assert_eq!((event.name, event.id), (None, Some("".into())));
    }
}
