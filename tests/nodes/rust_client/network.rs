//! Half-open connections, silent streams, restarted clients and concurrent readers.

use std::time::Duration;

use resilient_sse::{StreamState, client::CutCause};

use crate::{
    rust_client::{
        Nodes,
        reader::{Reader, get},
    },
    support::redis::Proxy,
};

/// As after the power failure of a host: the connection stays open, and nothing passes.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_half_open_is_noticed() {
    let nodes = Nodes::start(&["--heartbeat", "0.4"]);
    let proxy = Proxy::start(nodes.a.address);
    let mut reader = Reader::of(get(&format!("http://{}/api/stream/half?n=100&rate=50", proxy.address())));
    reader.until(20).await;
    proxy.point_at(nodes.b.address);
    proxy.strand();
    reader.until_end().await;
    reader.assert_has_all(100, StreamState::Completed);
    assert!(
        matches!(reader.cuts[..], [CutCause::Silent { waited }] if waited == Duration::from_secs(1)),
        "{:?}",
        reader.cuts
    );
}

/// The events come further apart than the client's time limit for silence. Heartbeats keep the connection alive.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_is_not_taken_for_a_dead_one() {
    let nodes = Nodes::start(&["--heartbeat", "0.3"]);
    let mut reader = Reader::of(get(&format!("http://{}/api/stream/slow?n=3&rate=0.5", nodes.a.address)));
    reader.until_end().await;
    reader.assert_has_all(3, StreamState::Completed);
    assert!(reader.cuts.is_empty(), "{:?}", reader.cuts);
}

/// Each new source, as in a restarted program, continues with the last id of the previous source.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_source_goes_on_where_the_last_one_was_dropped() {
    let nodes = Nodes::start(&[]);
    // The library generates the stream's id, so only the cursor names the stream.
    let [to_a, to_b] = [&nodes.a, &nodes.b].map(|node| format!("http://{}/api/stream?n=60&rate=300", node.address));
    let (mut cursor, mut numbers) = (String::new(), Vec::new());
    for part in 1..=10 {
        let mut reader = Reader::of(get(if part % 2 == 0 { &to_a } else { &to_b }).last_event_id(&*cursor));
        reader.until(6).await;
        numbers.extend_from_slice(reader.numbers());
        reader.source.last_event_id().clone_into(&mut cursor);
    }
    let mut last = Reader::of(get(&to_a).last_event_id(cursor));
    last.until_end().await;
    assert_eq!((numbers, last.numbers().len()), (Vec::from_iter(0..60), 0));
    assert_eq!(nodes.a.figure("started").await + nodes.b.figure("started").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_readers_at_two_nodes_get_the_same() {
    let nodes = Nodes::start(&[]);
    let [mut first, mut second] = [&nodes.a, &nodes.b]
        .map(|node| Reader::of(get(&format!("http://{}/api/stream/shared?n=100&rate=100", node.address))));
    tokio::join!(first.until_end(), second.until_end());
    for reader in [&first, &second] {
        reader.assert_has_all(100, StreamState::Completed);
    }
    assert_eq!(nodes.a.figure("started").await + nodes.b.figure("started").await, 1);
}
