//! Checks the parser and the scanner of the wire format against a corpus of event streams.
//!
//! Every case is read in the chunks of the corpus, split in two at every position, and byte by byte. Streams over 4 KiB
//! are split in two at only 300 positions, chosen with a fixed seed, so that the test stays fast in a debug build.

#![allow(clippy::expect_used, reason = "a broken corpus is a failed test")]

use std::{fmt, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use resilient_sse::wire::{Framing, Message, Parsed, Parser, Scanned, Sse};
use serde_json::Value;

const LIMIT: usize = 1 << 20;

struct Case {
    name: String,
    chunks: Vec<Vec<u8>>,
    events: Vec<Message>,
    last_event_id: String,
    reconnection_time: Option<u64>,
    comments: Vec<String>,
    blocks: Vec<Range<usize>>,
}

impl Case {
    fn of(case: &Value) -> Self {
        let chunk = |chunk: &Value| STANDARD.decode(text(chunk)).expect("base64");
        let block = |range: &Value| position(&range[0])..position(&range[1]);
        let expected = &case["expected"];
        Self {
            name: text(&case["name"]).to_owned(),
            chunks: list(&case["chunks"]).iter().map(chunk).collect(),
            events: list(&expected["events"]).iter().map(message).collect(),
            last_event_id: expected["lastEventId"].as_str().unwrap_or_default().to_owned(),
            reconnection_time: expected["reconnectionTime"].as_u64(),
            comments: list(&case["comments"]).iter().map(|comment| text(comment).to_owned()).collect(),
            blocks: list(&case["blocks"]).iter().map(block).collect(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    /// Runs `check` on every split of the case.
    fn for_each_split(&self, mut check: impl FnMut(&[&[u8]])) {
        let given: Vec<_> = self.chunks.iter().map(Vec::as_slice).collect();
        check(&given);
        let bytes = self.bytes();
        check(&bytes.chunks(1).collect::<Vec<_>>());
        for at in cuts(bytes.len()) {
            let (head, tail) = bytes.split_at(at);
            check(&[head, tail]);
        }
    }
}

fn cuts(len: usize) -> Vec<usize> {
    if len <= 4096 {
        return (0..=len).collect();
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % len
    };
    std::iter::repeat_with(next).take(300).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn position(value: &Value) -> usize {
    value.as_u64().and_then(|at| usize::try_from(at).ok()).expect("a position")
}

fn message(event: &Value) -> Message {
    Message {
        name: text(&event["type"]).to_owned(),
        data: text(&event["data"]).to_owned(),
        last_event_id: text(&event["id"]).to_owned(),
        retry: event["retry"].as_u64(),
    }
}

fn corpus() -> Vec<Case> {
    let corpus: Value = serde_json::from_str(include_str!("corpus/cases.json")).expect("JSON");
    let cases: Vec<_> = list(&corpus["cases"]).iter().map(Case::of).collect();
    assert_eq!(cases.len(), 108);
    cases
}

/// Everything that a client reads from a stream.
#[derive(Debug, PartialEq)]
struct Read {
    messages: Vec<Message>,
    comments: Vec<String>,
    last_event_id: String,
    reconnection_time: Option<u64>,
}

fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut parser = Parser::new(LIMIT);
    let (mut messages, mut comments) = (Vec::new(), Vec::new());
    for chunk in chunks {
        parser.push(chunk).expect("within the limit");
        while let Some(parsed) = parser.pop() {
            match parsed {
                Parsed::Message(message) => messages.push(message),
                Parsed::Comment(text) => comments.push(text),
            }
        }
    }
    let last_event_id = parser.last_event_id().to_owned();
    Read { messages, comments, last_event_id, reconnection_time: parser.reconnection_time() }
}

#[test]
fn the_parser_reads_every_case_under_every_split() {
    for case in corpus() {
        let expected = Read {
            messages: case.events.clone(),
            comments: case.comments.clone(),
            last_event_id: case.last_event_id.clone(),
            reconnection_time: case.reconnection_time,
        };
        case.for_each_split(|chunks| assert_eq!(read(chunks.iter().copied()), expected, "{}", case.name));
    }
}

/// An item that a scanner finds, in a form that does not depend on how the stream was split: adjacent asides are joined,
/// and their line ends are line feeds.
#[derive(PartialEq)]
enum Item {
    Event(Vec<u8>),
    Aside(Vec<u8>),
    Id(Vec<u8>),
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, bytes) = match self {
            Self::Event(bytes) => ("Event", bytes),
            Self::Aside(bytes) => ("Aside", bytes),
            Self::Id(bytes) => ("Id", bytes),
        };
        write!(f, "{kind}({})", bytes.escape_ascii())
    }
}

#[derive(Default)]
struct Items(Vec<Item>);

impl Items {
    fn aside(&mut self, lines: &[u8]) {
        let lines = lines_of(lines).flat_map(|line| [text_of(line), b"\n"].concat());
        match self.0.last_mut() {
            Some(Item::Aside(aside)) => aside.extend(lines),
            _ => self.0.push(Item::Aside(lines.collect())),
        }
    }

    /// Adds the items that the scanner should find in a block. The last block of a stream may be incomplete.
    fn block(&mut self, block: &[u8], complete: bool) {
        let lines: Vec<_> = lines_of(block).filter(|line| line.ends_with(b"\n") || line.ends_with(b"\r")).collect();
        let comments = lines.iter().take_while(|line| line.starts_with(b":")).count();
        let (leading, lines) = lines.split_at(comments);
        if !leading.is_empty() {
            self.aside(&leading.concat());
        }
        let Some((blank, lines)) = lines.split_last().filter(|_| complete) else { return };
        assert_eq!(text_of(blank), b"");
        if lines.iter().any(|line| field(line).0 == b"data") {
            return self.0.push(Item::Event(lines.concat()));
        }
        let mut fields = lines.iter().map(|line| field(line));
        if let Some((_, id)) = fields.rfind(|(name, id)| name == b"id" && !id.contains(&0)) {
            self.0.push(Item::Id(id.to_vec()));
        }
        let kept: Vec<_> = lines.iter().filter(|line| matches!(field(line).0, b"" | b"retry")).copied().collect();
        if !kept.is_empty() {
            self.aside(&kept.concat());
        }
    }
}

/// Splits bytes into lines with their ends. An independent and simple implementation of the rules, to check the scanner.
fn lines_of(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = match bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(at) if bytes[at..].starts_with(b"\r\n") => at + 2,
            Some(at) => at + 1,
            None => bytes.len(),
        };
        let (line, rest) = bytes.split_at(len);
        bytes = rest;
        (!line.is_empty()).then_some(line)
    })
}

fn text_of(line: &[u8]) -> &[u8] {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    text.strip_suffix(b"\r").unwrap_or(text)
}

fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let text = text_of(line);
    let colon = text.iter().position(|&byte| byte == b':').unwrap_or(text.len());
    let value = text.get(colon + 1..).unwrap_or_default();
    (&text[..colon], value.strip_prefix(b" ").unwrap_or(value))
}

/// Returns the items that the scanner should find, from the blocks that the corpus lists.
fn oracle(case: &Case) -> Vec<Item> {
    let bytes = case.bytes();
    let mut items = Items::default();
    let mut at = 0;
    let bom = |block: &mut &[u8], at| {
        if at == 0 {
            *block = block.strip_prefix(b"\xef\xbb\xbf").unwrap_or(block);
        }
    };
    for range in &case.blocks {
        assert_eq!(range.start, at, "{}", case.name);
        let mut block = &bytes[range.clone()];
        bom(&mut block, at);
        items.block(block, true);
        at = range.end;
    }
    let mut rest = &bytes[at..];
    bom(&mut rest, at);
    items.block(rest, false);
    items.0
}

/// An owned [`Scanned`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Event(Vec<u8>, bool),
    Aside(Vec<u8>),
    Id(Vec<u8>),
}

impl From<Scanned<'_>> for Found {
    fn from(found: Scanned<'_>) -> Self {
        match found {
            Scanned::Event(block) => Self::Event(block.bytes.to_vec(), block.has_id),
            Scanned::Aside(lines) => Self::Aside(lines.to_vec()),
            Scanned::Id(id) => Self::Id(id.to_vec()),
        }
    }
}

fn scan(chunks: &[&[u8]]) -> Vec<Found> {
    let mut scanner = Sse.scanner(LIMIT);
    let mut found = Vec::new();
    for chunk in chunks {
        scanner.push(Bytes::copy_from_slice(chunk));
        while let Some(item) = scanner.next().expect("within the limit") {
            found.push(item.into());
        }
    }
    found
}

#[test]
fn the_scanner_finds_the_oracles_blocks_under_every_split() {
    for case in corpus() {
        let expected = oracle(&case);
        case.for_each_split(|chunks| {
            let mut items = Items::default();
            for found in scan(chunks) {
                match found {
                    Found::Event(block, may_have_id) => {
                        let has_id = lines_of(&block).any(|line| field(line).0 == b"id");
                        assert_eq!(may_have_id, has_id, "{}", case.name);
                        items.0.push(Item::Event(block));
                    }
                    Found::Aside(lines) => items.aside(&lines),
                    Found::Id(id) => items.0.push(Item::Id(id)),
                }
            }
            assert_eq!(items.0, expected, "{}", case.name);
        });
    }
}

#[test]
fn what_is_delivered_reads_as_what_came() {
    for case in corpus() {
        case.for_each_split(|chunks| {
            let mut out = BytesMut::new();
            for found in scan(chunks) {
                match found {
                    Found::Event(block, _) => Sse.deliver(&block, false, None, None, &mut out),
                    Found::Aside(lines) => out.extend_from_slice(&lines),
                    Found::Id(id) => out.extend_from_slice(&[b"id: ", &id[..], b"\n\n"].concat()),
                }
                out.extend_from_slice(Sse.heartbeat());
            }
            let read = read([&out[..]]);
            assert_eq!(read.messages, case.events, "{}", case.name);
            assert_eq!(read.last_event_id, case.last_event_id, "{}", case.name);
        });
    }
}

#[test]
fn what_is_delivered_with_new_ids_differs_in_nothing_else() {
    for case in corpus() {
        case.for_each_split(|chunks| {
            let (mut out, mut inner, mut expected) = (BytesMut::new(), String::new(), Vec::new());
            for found in scan(chunks) {
                match found {
                    Found::Event(block, has_id) => {
                        let id = format!("7-{}", expected.len());
                        if let Some(id) = Sse.view(&block).id {
                            inner = id.into_owned();
                        }
                        Sse.deliver(&block, has_id, Some(id.as_bytes()), Some(1500), &mut out);
                        expected.push((id, inner.clone()));
                    }
                    Found::Aside(lines) => out.extend_from_slice(&lines),
                    Found::Id(id) => inner = String::from_utf8_lossy(&id).into_owned(),
                }
            }
            let messages = read([&out[..]]).messages;
            assert_eq!(messages.len(), case.events.len(), "{}", case.name);
            for ((message, event), (id, inner)) in messages.iter().zip(&case.events).zip(expected) {
                let retry = event.retry.or(Some(1500));
                assert_eq!(message, &Message { last_event_id: id, retry, ..event.clone() }, "{}", case.name);
                assert_eq!(event.last_event_id, inner, "{}", case.name);
            }
            assert_eq!(case.last_event_id, inner, "{}", case.name);
        });
    }
}

#[test]
fn a_view_says_what_the_event_says() {
    for case in corpus() {
        let chunks: Vec<_> = case.chunks.iter().map(Vec::as_slice).collect();
        let blocks = scan(&chunks).into_iter().filter_map(|found| match found {
            Found::Event(block, _) => Some(block),
            _ => None,
        });
        for (block, event) in blocks.zip(&case.events) {
            let view = Sse.view(&block);
            assert_eq!(view.name.as_deref().unwrap_or("message"), event.name, "{}", case.name);
            assert_eq!((&*view.data, view.retry), (&*event.data, event.retry), "{}", case.name);
        }
    }
}
