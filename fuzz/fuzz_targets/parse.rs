//! The client's parser takes any bytes, and a split changes nothing.

#![no_main]

mod split;

use libfuzzer_sys::fuzz_target;
use resilient_sse::wire::{Parsed, Parser};

fn parse(chunks: &[&[u8]], limit: usize) -> (Vec<Parsed>, String, Option<u64>, bool) {
    let mut parser = Parser::new(limit);
    let failed = chunks.iter().any(|chunk| parser.push(chunk).is_err());
    let found = std::iter::from_fn(|| parser.pop()).collect();
    (found, parser.last_event_id().to_owned(), parser.reconnection_time(), failed)
}

fuzz_target!(|input: &[u8]| {
    let Some((stream, chunks)) = split::split(input) else { return };
    for limit in [16, usize::MAX] {
        assert_eq!(parse(&chunks, limit), parse(&[stream], limit));
    }
});
