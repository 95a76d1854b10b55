//! The scanner takes any bytes, a split changes nothing, and what is delivered reads as what came.

#![no_main]

mod split;

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use resilient_sse::wire::{Framing, Message, Parsed, Parser, Scanned, Sse};

/// What a scanner finds; asides aside, whose pieces depend on the split.
fn scan(chunks: &[&[u8]], limit: usize, out: &mut BytesMut) -> (Vec<Scanned>, bool) {
    let mut scanner = Sse.scanner(limit);
    let mut found = Vec::new();
    for chunk in chunks {
        scanner.push(Bytes::copy_from_slice(chunk));
        loop {
            let item = match scanner.next() {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(_) => return (found, true),
            };
            match &item {
                Scanned::Event(block) => Sse.deliver(&block.bytes, false, None, None, out),
                Scanned::Aside(lines) => out.extend_from_slice(lines),
                Scanned::Id(id) => out.extend_from_slice(&[b"id: ", &id[..], b"\n\n"].concat()),
            }
            if !matches!(item, Scanned::Aside(_)) {
                found.push(item);
            }
        }
        assert!(scanner.pending() <= limit);
    }
    (found, false)
}

/// A stream's events, and its last event id. A delay may move to the next block.
fn messages(stream: &[u8]) -> (Vec<Message>, String) {
    let mut parser = Parser::new(usize::MAX);
    parser.push(stream).expect("no limit");
    let message = |parsed| match parsed {
        Parsed::Message(message) => Some(Message { retry: None, ..message }),
        Parsed::Comment(_) => None,
    };
    let messages = std::iter::from_fn(|| parser.pop()).filter_map(message).collect();
    (messages, parser.last_event_id().to_owned())
}

fuzz_target!(|input: &[u8]| {
    let Some((stream, chunks)) = split::split(input) else { return };
    for limit in [16, usize::MAX] {
        let (mut out, mut whole) = (BytesMut::new(), BytesMut::new());
        assert_eq!(scan(&chunks, limit, &mut out), scan(&[stream], limit, &mut whole));
    }

    let mut out = BytesMut::new();
    let (found, _) = scan(&chunks, usize::MAX, &mut out);
    assert_eq!(messages(&out), messages(stream));

    for block in found {
        let Scanned::Event(block) = block else { continue };
        let mut out = BytesMut::new();
        Sse.deliver(&block.bytes, true, Some(b"e7-1"), Some(1500), &mut out);
        let (messages, id) = messages(&out);
        let [message] = &messages[..] else { panic!("one block is one event") };
        let view = Sse.view(&block.bytes);
        assert_eq!((&*message.name, &*message.data), (view.name.as_deref().unwrap_or("message"), &*view.data));
        assert_eq!(id, "e7-1");
    }
});
