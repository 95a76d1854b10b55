//! Lines and the fields in them (WHATWG HTML § 9.2.6).

use std::sync::LazyLock;

use memchr::{memchr, memchr2, memmem::Finder};

/// The byte order mark, U+FEFF in UTF-8, which may appear once at the start of a stream.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// Finds the end of a line. Returns the length of the text, and the length of the whole line with its line end.
///
/// A carriage return as the last byte ends the line at once, although a line feed in the next chunk may belong to the
/// same line end. `has_cr` may be `false` only if `bytes` holds no carriage return.
#[inline]
pub(super) fn line_end(bytes: &[u8], has_cr: bool) -> Option<(usize, usize)> {
    if !has_cr {
        return memchr(b'\n', bytes).map(|at| (at, at + 1));
    }
    let at = memchr2(b'\r', b'\n', bytes)?;
    let crlf = bytes[at] == b'\r' && bytes.get(at + 1) == Some(&b'\n');
    Some((at, at + 1 + usize::from(crlf)))
}

/// Iterates over the lines of a block, including a last line without a line end.
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    has_cr: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn of(block: &'a [u8]) -> Self {
        Self { rest: block, has_cr: memchr(b'\r', block).is_some() }
    }
}

/// A line without its end (`text`) and with it (`whole`).
pub(super) struct Line<'a> {
    pub(super) text: &'a [u8],
    pub(super) whole: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.len();
        let (text, whole) = line_end(self.rest, self.has_cr).unwrap_or((end, end));
        let line = Line { text: &self.rest[..text], whole: &self.rest[..whole] };
        self.rest = &self.rest[whole..];
        Some(line)
    }
}

/// Returns the last reconnect delay, in milliseconds, that the lines set.
pub(super) fn retry_in(lines: &[u8]) -> Option<u64> {
    // This runs for every event, and few events have a `retry` field: one search rules the others out.
    static RETRY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("retry:"));
    RETRY.find(lines)?;
    let delay_of = |line: Line<'_>| if let Field::Retry(value) = Field::of(line.text) { delay(value) } else { None };
    Lines::of(lines).filter_map(delay_of).last()
}

/// The field in a line that is not blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Comment(&'a [u8]),
    Event(&'a [u8]),
    Data(&'a [u8]),
    /// An id; it may be invalid, see [`valid_id`].
    Id(&'a [u8]),
    /// A reconnect delay; it may be invalid, see [`delay`].
    Retry(&'a [u8]),
    Unknown,
}

impl<'a> Field<'a> {
    #[inline]
    pub(super) fn of(text: &'a [u8]) -> Self {
        let known = match text.first() {
            Some(b':') => return Self::Comment(&text[1..]),
            Some(b'd') => value(text, b"data").map(Self::Data),
            Some(b'i') => value(text, b"id").map(Self::Id),
            Some(b'e') => value(text, b"event").map(Self::Event),
            Some(b'r') => value(text, b"retry").map(Self::Retry),
            _ => None,
        };
        known.unwrap_or(Self::Unknown)
    }
}

/// Whether a line is a field of this name.
#[inline]
pub(super) fn is_field(text: &[u8], name: &[u8]) -> bool {
    text.strip_prefix(name).is_some_and(|rest| matches!(rest.first(), None | Some(b':')))
}

/// Returns the value of the field `name`; `None` if the line is another field.
#[inline]
fn value<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match text.strip_prefix(name)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

/// Whether clients accept this value of an `id` field: they ignore an id that contains a NUL.
pub(super) fn valid_id(value: &[u8]) -> bool {
    memchr(0, value).is_none()
}

/// Returns the delay that a `retry` field sets; `None` unless the value is all digits. A number above [`u64::MAX`]
/// gives [`u64::MAX`].
pub(super) fn delay(value: &[u8]) -> Option<u64> {
    let digit = |sum: u64, byte: &u8| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
    let valid = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    valid.then(|| value.iter().fold(0, digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_each_of_three_ways() {
        let lines: Vec<_> = Lines::of(b"a\r\nb\rc\n\rd").map(|line| (line.text, line.whole)).collect();
        let expected: [(&[u8], &[u8]); 5] =
            [(b"a", b"a\r\n"), (b"b", b"b\r"), (b"c", b"c\n"), (b"", b"\r"), (b"d", b"d")];
        assert_eq!(lines, expected);
    }

    #[test]
    fn one_space_after_the_colon_is_dropped() {
        assert_eq!(Field::of(b"data:  x"), Field::Data(b" x"));
        assert_eq!(Field::of(b"data"), Field::Data(b""));
        assert_eq!(Field::of(b"id:"), Field::Id(b""));
        assert_eq!(Field::of(b": c"), Field::Comment(b" c"));
        for unknown in [&b"datax"[..], b"data : x", b"Data: x", b" data: x", b"idx", b"retr"] {
            assert_eq!(Field::of(unknown), Field::Unknown);
        }
    }

    #[test]
    fn the_last_delay_that_is_valid_counts() {
        assert_eq!(retry_in(b"retry: 5\nretry:7\r\nretry: +8\rretry:\nretry\nretry : 9\n"), Some(7));
        assert_eq!(retry_in(b"data: retry: 5\n"), None);
    }

    #[test]
    fn delays_are_digits_only() {
        assert_eq!(delay(b"0010"), Some(10));
        assert_eq!(delay(b"99999999999999999999999"), Some(u64::MAX));
        for invalid in [&b""[..], b"-1", b"+1", b"1 ", b"0x1"] {
            assert_eq!(delay(invalid), None);
        }
    }
}
