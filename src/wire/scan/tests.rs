//! The items that the scanner finds in streams, each of which shows one rule.

use super::*;

/// An owned copy of an item that the scanner found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::wire) enum Found {
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

fn event(lines: &str, has_id: bool) -> Found {
    Found::Event(lines.into(), has_id)
}

fn aside(lines: &str) -> Found {
    Found::Aside(lines.into())
}

fn id(id: &str) -> Found {
    Found::Id(id.into())
}

fn drain(scanner: &mut SseScan) -> Result<Vec<Found>, TooLarge> {
    std::iter::from_fn(|| scanner.next().map(|found| found.map(Found::from)).transpose()).collect()
}

/// Returns the items found after each chunk.
fn scan<const N: usize>(chunks: [&'static str; N]) -> [Vec<Found>; N] {
    let mut scanner = SseScan::new(1000);
    chunks.map(|chunk| {
        scanner.push(Bytes::from_static(chunk.as_bytes()));
        drain(&mut scanner).expect("small")
    })
}

#[test]
fn a_whole_block_is_read_where_it_lies() {
    let chunk = Bytes::from(b"\ndata: a\n\nid: 7\r\ndata: b\r\n\r\n".to_vec());
    let mut scanner = SseScan::new(1000);
    scanner.push(chunk.clone());
    for lines in ["data: a\n", "id: 7\r\ndata: b\r\n"] {
        let Ok(Some(Scanned::Event(block))) = scanner.next() else { panic!("an event was due") };
        assert_eq!(block.bytes, lines.as_bytes());
        assert!(chunk.as_ptr_range().contains(&block.bytes.as_ptr()));
    }
}

#[test]
fn a_comment_before_a_block_is_given_at_once() {
    assert_eq!(
        scan([": hb\n", ":", "\n: a\n:b\r", "\n:c\ndata: x\n: d\n", "\n:\n\n"]),
        [
            vec![aside(": hb\n")],
            vec![],
            vec![aside(":\n"), aside(": a\n:b\r")],
            vec![aside(":c\n")],
            vec![event("data: x\n: d\n", false), aside(":\n")],
        ]
    );
}

#[test]
fn a_block_without_data_leaves_its_id_and_what_works_outside_of_it() {
    assert_eq!(
        scan(["event: e\nid: 1\nid: \0\nretry: 5\nx\n: c\n\n", "id\n\n", "event: e\n\n", "re", "try:\n\n"]),
        [vec![id("1"), aside("retry: 5\n: c\n")], vec![id("")], vec![], vec![], vec![aside("retry:\n")]]
    );
}

#[test]
fn a_carriage_return_ends_a_line_at_once() {
    assert_eq!(
        scan(["data: a\r", "\n\r", "\ndata: b\r\r", "data\r", "\r\n\n"]),
        [
            vec![],
            vec![event("data: a\r\n", false)],
            vec![event("data: b\r", false)],
            vec![],
            vec![event("data\r", false)],
        ]
    );
}

#[test]
fn what_is_not_quite_a_byte_order_mark_is_kept() {
    let mut scanner = SseScan::new(1000);
    for chunk in [&b"\xef"[..], b"\xbb", b"data: a\n", b"data: b\n\n"] {
        scanner.push(Bytes::from_static(chunk));
        assert_eq!(drain(&mut scanner).map(|found| found.len()), Ok(usize::from(chunk.ends_with(b"\n\n"))));
    }
}

#[test]
fn a_byte_order_mark_at_the_start_of_the_stream_is_dropped() {
    let stream = b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n";
    for size in 1..=stream.len() {
        let mut scanner = SseScan::new(1000);
        let found = stream.chunks(size).flat_map(|chunk| {
            scanner.push(Bytes::from_static(chunk));
            drain(&mut scanner).expect("small")
        });
        assert_eq!(found.collect::<Vec<_>>(), [event("data: a\n", false)], "in chunks of {size}");
    }
}

#[test]
fn a_chunk_may_be_larger_than_a_block() {
    let mut scanner = SseScan::new(10);
    scanner.push(Bytes::from("data: 789\n\n".repeat(10)));
    assert_eq!(drain(&mut scanner).map(|found| found.len()), Ok(10));
}

#[test]
fn what_is_held_is_bounded() {
    for endless in ["data: x", ": x", "event: x\n", "x\n", "data: x\n"] {
        let mut scanner = SseScan::new(100);
        scanner.push(Bytes::from_static(b"data: before\n\n"));
        assert_eq!(drain(&mut scanner), Ok(vec![event("data: before\n", false)]));
        if endless == ": x" {
            scanner.push(Bytes::from_static(b":"));
        }
        let errors = (0..100).filter(|_| {
            scanner.push(Bytes::from_static(endless.trim_start_matches(": ").as_bytes()));
            let failed = scanner.next() == Err(TooLarge { limit: 100 });
            assert!(scanner.pending() <= 100);
            failed
        });
        assert!(errors.count() > 0, "{endless}");
    }
}

#[test]
fn comments_and_blank_lines_go_on_for_ever() {
    let mut scanner = SseScan::new(10);
    for chunk in [": hb\n", "\n\n", ":\n\n", "\r\n", "id: 1\n\n"].iter().cycle().take(10_000) {
        scanner.push(Bytes::from_static(chunk.as_bytes()));
        assert!(drain(&mut scanner).is_ok());
        assert_eq!(scanner.pending(), 0);
    }
}

#[test]
fn an_event_of_just_the_limit_passes() {
    for (chunks, fits) in [
        (["data: 7890", "\n\n"], false),
        (["data: 789\n", "\n"], true),
        (["data: 789\r", "\n\n"], false),
        (["data: 789\r", "\r\n"], true),
        (["data: 78\r", "\n\n"], true),
    ] {
        let mut scanner = SseScan::new(10);
        let found = chunks.map(|chunk| {
            scanner.push(Bytes::from_static(chunk.as_bytes()));
            drain(&mut scanner)
        });
        assert_eq!(found[1].is_ok(), fits, "{chunks:?}");
    }
}

#[test]
fn a_large_block_leaves_no_large_buffer() {
    let mut scanner = SseScan::new(1 << 20);
    let line = format!("data: {}\n", "x".repeat(100_000));
    for piece in line.as_bytes().chunks(1000) {
        scanner.push(Bytes::copy_from_slice(piece));
        assert_eq!(drain(&mut scanner), Ok(vec![]));
    }
    assert_eq!(scanner.pending(), line.len());
    scanner.push(Bytes::from_static(b"\n"));
    let found = drain(&mut scanner).expect("small");
    assert_eq!(found, [event(&line, false)]);
    assert_eq!((scanner.pending(), scanner.chunk.len()), (0, 0));
    assert!(scanner.held.capacity() <= KEPT);
}

/// Returns the items found in the chunks and after [`Scan::finish`].
fn finished(chunks: &[&'static str]) -> Vec<Found> {
    let mut scanner = SseScan::new(1000);
    let mut found = Vec::new();
    for chunk in chunks {
        scanner.push(Bytes::from_static(chunk.as_bytes()));
        found.extend(drain(&mut scanner).expect("small"));
    }
    scanner.finish();
    found.extend(drain(&mut scanner).expect("small"));
    assert_eq!(scanner.pending(), 0);
    found
}

#[test]
fn at_the_end_a_last_block_is_whole() {
    for (chunks, lines) in [
        (&["data: a"][..], "data: a\n"),
        (&["data: a\n"], "data: a\n"),
        (&["data: a\r\n"], "data: a\r\n"),
        (&["data: a\r"], "data: a\r"),
        (&["da", "ta: a"], "data: a\n"),
        (&["data: a\n", "event: b"], "data: a\nevent: b\n"),
        (&["\n\ndata: a\r", "\n"], "data: a\r\n"),
    ] {
        assert_eq!(finished(chunks), [event(lines, false)], "{chunks:?}");
    }
    assert_eq!(finished(&["data: a\n\nid: 7"]), [event("data: a\n", false), id("7")]);
    assert_eq!(finished(&[": a"]), [aside(": a\n")]);
}

#[test]
fn at_the_end_nothing_is_made_of_nothing() {
    for chunks in [&[][..], &["\n"], &["data: a\n\n"], &["data: a\r\n\r\n"], &["data: a\r\r"], &["data: a\n\r"], &["x"]]
    {
        let whole = finished(chunks).len();
        assert_eq!(whole, usize::from(chunks.iter().any(|chunk| chunk.contains("data"))), "{chunks:?}");
    }
    let mut scanner = SseScan::new(1000);
    scanner.push(Bytes::from_static(b"\xef\xbb"));
    scanner.finish();
    assert_eq!(drain(&mut scanner), Ok(vec![]), "half a byte order mark");
}

#[test]
fn at_the_end_the_limit_holds() {
    let mut scanner = SseScan::new(10);
    scanner.push(Bytes::from_static(b"data: 7890"));
    assert_eq!(drain(&mut scanner), Ok(vec![]));
    scanner.finish();
    assert_eq!(drain(&mut scanner), Err(TooLarge { limit: 10 }));
    scanner.finish();
    assert_eq!(drain(&mut scanner), Err(TooLarge { limit: 10 }), "for ever");
}
