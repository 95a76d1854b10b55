//! Reads the replies of a server.

use std::collections::HashMap;

use bytes::Bytes;
use redis::Value;

use super::error::RedisStoreError;

/// The fields of a hash. It does not fit the entries of logs, whose fields may repeat.
pub(super) type Fields = HashMap<String, Vec<u8>>;

pub(super) fn unexpected(what: &'static str) -> RedisStoreError {
    RedisStoreError::unexpected(what)
}

pub(super) fn array(value: Value, what: &'static str) -> Result<Vec<Value>, RedisStoreError> {
    match value {
        Value::Array(values) | Value::Set(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(unexpected(what)),
    }
}

pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Okay => Some(b"OK".to_vec()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        Value::Double(number) => Some(format!("{number:.0}").into_bytes()),
        _ => None,
    }
}

pub(super) fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}

/// Reads a whole number that was sent as a number, as text or as a score.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Double(number) if *number >= 0.0 => Some(*number as u64),
        Value::BulkString(bytes) => number_of(bytes),
        Value::SimpleString(text) => number_of(text.as_bytes()),
        _ => None,
    }
}

/// Reads a whole number from text. It may have the form of a decimal fraction, as RESP2 sends scores.
pub(super) fn number_of(bytes: &[u8]) -> Option<u64> {
    let text = str::from_utf8(bytes).ok()?;
    text.parse().ok().or_else(|| text.parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| number as u64))
}

pub(super) fn fields(value: Value, what: &'static str) -> Result<Fields, RedisStoreError> {
    let pairs: Vec<(Value, Value)> = match value {
        Value::Map(pairs) => pairs,
        other => {
            let mut values = array(other, what)?.into_iter();
            std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect()
        }
    };
    let field = |(name, value)| Some((text(name)?, bytes(value)?));
    Ok(pairs.into_iter().filter_map(field).collect())
}

/// Reads members and their scores. RESP3 sends them in pairs, RESP2 one after the other.
pub(super) fn scored(reply: Value, what: &'static str) -> Result<Vec<(Value, u64)>, RedisStoreError> {
    let mut flat = Vec::new();
    for value in array(reply, what)? {
        match value {
            Value::Array(pair) => flat.extend(pair),
            value => flat.push(value),
        }
    }
    let mut flat = flat.into_iter();
    Ok(std::iter::from_fn(|| Some((flat.next()?, number(&flat.next()?)?))).collect())
}

/// Turns the error for a key of another type into the reply for a missing key.
pub(super) fn or_missing(reply: Result<Value, RedisStoreError>) -> Result<Value, RedisStoreError> {
    match reply {
        Err(error) if error.is_of_one_key() => Ok(Value::Nil),
        reply => reply,
    }
}

/// The reply of a script: a first word, and further values.
pub(super) struct ScriptReply {
    pub(super) word: String,
    rest: std::vec::IntoIter<Value>,
    what: &'static str,
}

impl ScriptReply {
    pub(super) fn read(value: Value, what: &'static str) -> Result<Self, RedisStoreError> {
        let mut rest = array(value, what)?.into_iter();
        let word = rest.next().and_then(text).ok_or_else(|| unexpected(what))?;
        Ok(Self { word, rest, what })
    }

    pub(super) fn next(&mut self) -> Result<Value, RedisStoreError> {
        self.rest.next().ok_or_else(|| unexpected(self.what))
    }

    pub(super) fn text(&mut self) -> Result<String, RedisStoreError> {
        text(self.next()?).ok_or_else(|| unexpected(self.what))
    }

    pub(super) fn number(&mut self) -> Result<u64, RedisStoreError> {
        number(&self.next()?).ok_or_else(|| unexpected(self.what))
    }

    pub(super) fn fields(&mut self) -> Result<Fields, RedisStoreError> {
        fields(self.next()?, self.what)
    }

    /// Returns the error for a first word that this version of the library does not know.
    pub(super) fn unknown(&self) -> RedisStoreError {
        unexpected(self.what)
    }
}

/// The first byte of stored events. It marks a block or a frame.
const BLOCK: u8 = 1;
const FRAME: u8 = 2;

/// Removes the version byte from a stored block. Returns `None` if the value is empty or has another version byte.
pub(super) fn block(stored: Vec<u8>) -> Option<Bytes> {
    unversioned(stored, BLOCK)
}

/// Removes the version byte from a stored frame. Returns `None` if the value is empty or has another version byte.
pub(super) fn frame(stored: Vec<u8>) -> Option<Bytes> {
    unversioned(stored, FRAME)
}

fn unversioned(stored: Vec<u8>, version: u8) -> Option<Bytes> {
    let stored = Bytes::from(stored);
    (stored.first() == Some(&version)).then(|| stored.slice(1..))
}

/// An argument that holds events in their stored form.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    version: u8,
    bytes: &'a [u8],
}

impl<'a> Stored<'a> {
    /// A terminal event.
    pub(super) fn block(bytes: &'a [u8]) -> Self {
        Self { version: BLOCK, bytes }
    }

    /// Events of a log.
    pub(super) fn frame(bytes: &'a [u8]) -> Self {
        Self { version: FRAME, bytes }
    }
}

impl redis::ToRedisArgs for Stored<'_> {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        use std::io::Write as _;
        let mut argument = out.writer_for_next_arg();
        // Writing to memory does not fail.
        let _ = argument.write_all(&[self.version]).and_then(|()| argument.write_all(self.bytes));
    }
}
