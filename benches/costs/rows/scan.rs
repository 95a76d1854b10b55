//! The cost of finding an event's end, against `memchr2` over its line ends, which ignores fields.

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use resilient_sse::wire::{Framing as _, Sse};

use crate::{
    Options, Result,
    figure::{Goal, Line, over},
    rows::in_turns,
};

pub(crate) const WHAT: &str = "finding an event's end, against memchr2 over its line ends";

const EVENTS: usize = 64;
const TIMES: usize = 4000;
const LIMIT: usize = 1 << 20;

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for size in [64, 256, 1024] {
        let event = format!("data: {}\n\n", "x".repeat(size - "data: \n\n".len()));
        let chunk = Bytes::from(event.repeat(EVENTS));
        let [bare, scanned]: [Vec<f64>; 2] = in_turns(options, |variant, _| {
            let begun = Instant::now();
            for _ in 0..TIMES {
                let found = if variant == 0 { memchr2(black_box(&chunk)) } else { scan(black_box(&chunk)) };
                assert_eq!(black_box(found), EVENTS, "all events are found");
            }
            Ok(begun.elapsed().as_secs_f64() * 1e9 / (TIMES * EVENTS) as f64)
        })?;
        lines.push(Line::new(WHAT, format!("{size} B, 64 events a chunk"), "×", Goal::None, over(&scanned, &bare)));
    }
    Ok(lines)
}

fn memchr2(chunk: &Bytes) -> usize {
    let (mut from, mut line, mut found) = (0, 0, 0);
    for at in memchr::memchr2_iter(b'\r', b'\n', chunk) {
        if at == line {
            black_box(&chunk.slice(from..at));
            from = at + 1;
            found += 1;
        }
        line = at + 1;
    }
    found
}

fn scan(chunk: &Bytes) -> usize {
    let mut scanner = Sse.scanner(LIMIT);
    scanner.push(chunk.clone());
    let mut found = 0;
    while let Ok(Some(item)) = &scanner.next() {
        black_box(item);
        found += 1;
    }
    found
}
