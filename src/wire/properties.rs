//! Properties that hold for any bytes and any text.

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, option, prelude::*};

use super::{EncodeError, Framing, Message, Parsed, Parser, Scan, Scanned, Sse, TooLarge, scan::tests::Found};
use crate::model::event::Event;

/// Generates bytes that are mostly pieces of event streams.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "\n", "\r", "\r\n", "\n\n", "\r\r", ":", ": c\n", "data", "data:", "data: x\n", "data\n\n", "id", "id:",
            "id: 7\n", "id: \0\n", "event: e\n", "event", "retry: 10\n", "retry:", " ", "\u{feff}", "x", "\0",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Generates text of mostly troublesome characters.
fn text() -> impl Strategy<Value = String> {
    let letter = prop_oneof![
        3 => prop::sample::select(vec!['\n', '\r', '\0', ' ', ':', '\u{feff}', '\u{2028}', 'a', '\u{b}']),
        1 => any::<char>(),
    ];
    vec(letter, 0..12).prop_map(String::from_iter)
}

fn split<'a>(bytes: &'a [u8], lens: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut chunks = Vec::new();
    for &len in lens.iter().cycle().take(bytes.len()) {
        let (chunk, tail) = rest.split_at(len.min(rest.len()));
        chunks.push(chunk);
        rest = tail;
    }
    chunks.push(rest);
    chunks
}

/// Scans chunks until the stream ends or a block exceeds the limit. Neighbouring asides are joined and their line ends
/// unified, because both depend on the split.
fn scan(chunks: &[&[u8]], limit: usize) -> (Vec<Found>, bool) {
    let mut scanner = Sse.scanner(limit);
    let mut found: Vec<Found> = Vec::new();
    for chunk in chunks {
        scanner.push(Bytes::copy_from_slice(chunk));
        loop {
            match scanner.next().map(|item| item.map(Found::from)) {
                Ok(Some(Found::Aside(lines))) => {
                    let lines = lines.replace_line_ends();
                    match found.last_mut() {
                        Some(Found::Aside(aside)) => aside.extend(lines),
                        _ => found.push(Found::Aside(lines)),
                    }
                }
                Ok(Some(item)) => found.push(item),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!((error, scanner.next()), (TooLarge { limit }, Err(error)));
                    return (found, true);
                }
            }
            assert!(scanner.pending() <= limit);
        }
    }
    (found, false)
}

trait ReplaceLineEnds {
    fn replace_line_ends(&self) -> Vec<u8>;
}

impl ReplaceLineEnds for Vec<u8> {
    fn replace_line_ends(&self) -> Vec<u8> {
        super::lines::Lines::of(self).flat_map(|line| [line.text, b"\n"].concat()).collect()
    }
}

fn parse(chunks: &[&[u8]], limit: usize) -> (Vec<Parsed>, String, Option<u64>, bool) {
    let mut parser = Parser::new(limit);
    let failed = chunks.iter().any(|chunk| parser.push(chunk).is_err());
    let found = std::iter::from_fn(|| parser.pop()).collect();
    (found, parser.last_event_id().to_owned(), parser.reconnection_time(), failed)
}

/// Returns the events of a stream and the state of the parser after it. The delays of the events are left out: after
/// delivery, a delay from a block without data belongs to the next event.
fn messages(bytes: &[u8]) -> (Vec<Message>, String, Option<u64>) {
    let (found, last_event_id, reconnection_time, _) = parse(&[bytes], usize::MAX);
    let message = |parsed| match parsed {
        Parsed::Message(message) => Some(Message { retry: None, ..message }),
        Parsed::Comment(_) => None,
    };
    (found.into_iter().filter_map(message).collect(), last_event_id, reconnection_time)
}

/// Asserts that the last line of a block has its line end.
fn assert_whole(block: &[u8]) {
    assert!(matches!(block.last(), Some(b'\n' | b'\r')), "{block:?}");
}

/// Checks the rules for events independently of the encoder.
fn rules(event: &Event) -> Result<(), EncodeError> {
    if let Some(at) = event.data().find('\r') {
        return Err(EncodeError::CarriageReturnInData { at });
    }
    match event.name() {
        Some("") => return Err(EncodeError::EmptyName),
        Some(name) if name.contains(['\r', '\n']) => return Err(EncodeError::LineEndInName { name: name.into() }),
        _ => {}
    }
    match event.id() {
        Some(id) if id.contains(['\r', '\n']) => Err(EncodeError::LineEndInId { id: id.into() }),
        Some(id) if id.contains('\0') => Err(EncodeError::NulInId { id: id.into() }),
        _ => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_split_changes_nothing(bytes in stream(), lens in vec(0..9_usize, 1..6), limit in 0..40_usize) {
        for limit in [limit, usize::MAX] {
            let chunks = split(&bytes, &lens);
            prop_assert_eq!(scan(&chunks, limit), scan(&[&bytes], limit));
            prop_assert_eq!(parse(&chunks, limit), parse(&[&bytes], limit));
        }
    }

    #[test]
    fn pushing_ahead_of_what_is_taken_changes_nothing(bytes in stream(), lens in vec(0..9_usize, 1..6)) {
        let mut scanner = Sse.scanner(usize::MAX);
        let mut found = Vec::new();
        for chunk in split(&bytes, &lens) {
            scanner.push(Bytes::copy_from_slice(chunk));
            found.extend(scanner.next()?.map(Found::from));
        }
        while let Some(item) = scanner.next()? {
            found.push(item.into());
        }
        let events = |items: Vec<Found>| -> Vec<_> {
            items.into_iter().filter(|item| !matches!(item, Found::Aside(_))).collect()
        };
        prop_assert_eq!(events(found), events(scan(&[&bytes], usize::MAX).0));
    }

    #[test]
    fn what_is_delivered_reads_as_what_came(bytes in stream(), lens in vec(0..9_usize, 1..6)) {
        let mut out = BytesMut::new();
        for found in scan(&split(&bytes, &lens), usize::MAX).0 {
            match found {
                Found::Event(block, _) => Sse.deliver(&block, false, None, None, &mut out),
                Found::Aside(lines) => out.extend_from_slice(&lines),
                Found::Id(id) => out.extend_from_slice(&[b"id: ", &id[..], b"\n\n"].concat()),
            }
        }
        // The delay of an unfinished block is lost with it.
        prop_assert_eq!(messages(&out).0, messages(&bytes).0);
        prop_assert_eq!(messages(&out).1, messages(&bytes).1);
    }

    #[test]
    fn the_end_is_as_good_as_a_blank_line(bytes in stream(), lens in vec(0..9_usize, 1..6)) {
        let mut scanner = Sse.scanner(usize::MAX);
        let mut out = BytesMut::new();
        let mut take = |scanner: &mut Box<dyn Scan>| -> Result<(), TooLarge> {
            while let Some(found) = scanner.next()? {
                if let Scanned::Event(block) = found {
                    assert_whole(block.bytes);
                    Sse.deliver(block.bytes, false, None, None, &mut out);
                }
            }
            Ok(())
        };
        for chunk in split(&bytes, &lens) {
            scanner.push(Bytes::copy_from_slice(chunk));
            take(&mut scanner)?;
        }
        scanner.finish();
        take(&mut scanner)?;
        let data = |bytes: &[u8]| messages(bytes).0.into_iter().map(|message| (message.name, message.data)).collect::<Vec<_>>();
        prop_assert_eq!(data(&out), data(&[&bytes[..], b"\n\n"].concat()));
    }

    #[test]
    fn an_event_reads_as_it_was(data in text(), name in option::of(text()), id in option::of(text())) {
        let mut event = Event::new(data.clone());
        if let Some(name) = &name {
            event = event.named(name);
        }
        if let Some(id) = &id {
            event = event.with_id(id);
        }
        let block = Sse.encode(&event);
        prop_assert_eq!(block.clone().map(drop), rules(&event));
        let Ok(block) = block else { return Ok(()) };

        let view = Sse.view(&block);
        prop_assert_eq!(view.name.as_deref(), name.as_deref());
        prop_assert_eq!((&*view.data, view.id.as_deref()), (&*data, id.as_deref()));

        let mut out = BytesMut::new();
        Sse.deliver(&block, false, None, None, &mut out);
        let found = scan(&[&out], usize::MAX).0;
        prop_assert_eq!(found, [Found::Event(block.to_vec(), id.is_some())]);
        let name = name.unwrap_or_else(|| "message".into());
        let id = id.unwrap_or_default();
        let message = Message { name, data, last_event_id: id.clone(), retry: None };
        prop_assert_eq!(messages(&out), (vec![message], id, None));
    }
}
