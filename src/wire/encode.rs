//! Encodes events so that a client reads back exactly the same event.

use std::{error::Error, fmt};

use bytes::{BufMut, Bytes, BytesMut};
use memchr::{memchr, memchr_iter, memchr2};

use crate::model::event::Event;

/// The error of encoding an event that no client could read back unchanged (WHATWG HTML § 9.2.6).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The data has a carriage return. Clients would read it as a line feed, because both end a line.
    CarriageReturnInData {
        /// The offset of the first carriage return, in bytes.
        at: usize,
    },
    /// The name is empty. Clients read an empty name as no name, so leave it out.
    EmptyName,
    /// The name has a line end. Clients would read the rest as a new field.
    LineEndInName {
        /// The name.
        name: String,
    },
    /// The id has a line end. Clients would read the rest as a new field.
    LineEndInId {
        /// The id.
        id: String,
    },
    /// The id has a NUL. Clients ignore such an id.
    NulInId {
        /// The id.
        id: String,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CarriageReturnInData { at } => {
                write!(f, "an event's data must not hold a carriage return, as it does at byte {at}")
            }
            Self::EmptyName => f.write_str("an event's name must not be empty"),
            Self::LineEndInName { name } => write!(f, "an event's name must not hold a line end: {name:?}"),
            Self::LineEndInId { id } => write!(f, "an event's id must not hold a line end: {id:?}"),
            Self::NulInId { id } => write!(f, "an event's id must not hold a NUL: {id:?}"),
        }
    }
}

impl Error for EncodeError {}

/// Encodes an event as a block, with the id in the last line.
pub(super) fn encode(event: &Event) -> Result<Bytes, EncodeError> {
    check(event)?;
    let data = event.data().as_bytes();
    let lines = memchr_iter(b'\n', data).count() + 1;
    let named = |field: Option<&str>, name: &str| field.map_or(0, |value| name.len() + ": \n".len() + value.len());
    let len = named(event.name(), "event") + named(event.id(), "id") + data.len() + lines * "data: \n".len();

    let mut block = BytesMut::with_capacity(len);
    if let Some(name) = event.name() {
        put(b"event: ", name.as_bytes(), &mut block);
    }
    for line in data.split(|&byte| byte == b'\n') {
        put(b"data: ", line, &mut block);
    }
    if let Some(id) = event.id() {
        put(b"id: ", id.as_bytes(), &mut block);
    }
    Ok(block.freeze())
}

fn put(field: &[u8], value: &[u8], block: &mut BytesMut) {
    block.put_slice(field);
    block.put_slice(value);
    block.put_u8(b'\n');
}

fn check(event: &Event) -> Result<(), EncodeError> {
    if let Some(at) = memchr(b'\r', event.data().as_bytes()) {
        return Err(EncodeError::CarriageReturnInData { at });
    }
    if let Some(name) = event.name() {
        if name.is_empty() {
            return Err(EncodeError::EmptyName);
        }
        if has_line_end(name) {
            return Err(EncodeError::LineEndInName { name: name.to_owned() });
        }
    }
    if let Some(id) = event.id() {
        if has_line_end(id) {
            return Err(EncodeError::LineEndInId { id: id.to_owned() });
        }
        if memchr(0, id.as_bytes()).is_some() {
            return Err(EncodeError::NulInId { id: id.to_owned() });
        }
    }
    Ok(())
}

fn has_line_end(text: &str) -> bool {
    memchr2(b'\r', b'\n', text.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_order_and_data_by_lines() {
        let block = encode(&Event::new("a\n\nb\n").named("n").with_id("7")).expect("encodable");
        assert_eq!(block, "event: n\ndata: a\ndata: \ndata: b\ndata: \nid: 7\n");
        assert_eq!(encode(&Event::new("")).expect("encodable"), "data: \n");
    }

    #[test]
    fn errors_name_input_and_rule() {
        let cases = [
            (Event::new("a\r\nb"), "an event's data must not hold a carriage return, as it does at byte 1"),
            (Event::new("").named(""), "an event's name must not be empty"),
            (Event::new("").named("a\nb"), r#"an event's name must not hold a line end: "a\nb""#),
            (Event::new("").with_id("a\rb"), r#"an event's id must not hold a line end: "a\rb""#),
            (Event::new("").with_id("a\0"), r#"an event's id must not hold a NUL: "a\0""#),
        ];
        for (event, said) in cases {
            assert_eq!(encode(&event).expect_err("not encodable").to_string(), said);
        }
    }
}
