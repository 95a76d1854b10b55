//! Connections that are cut at each byte of a response.

use futures_util::{StreamExt as _, stream::iter};
use http::StatusCode;
use resilient_sse::StreamState;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    rust_client::{
        Nodes,
        front::{Front, Plan},
        reader::{Reader, get},
    },
    support::{example::Server, redis::End},
};

/// The number of tokens in the published stream.
const TOKENS: u64 = 8;

/// Publishes a stream with characters of two, three and four bytes.
async fn publish(node: &Server, id: &str) {
    for s in 0..TOKENS {
        let event = format!(r#"{{"type":"token","data":{{"s":{s},"text":"ä€𝄞{s}"}}}}"#);
        let (status, _) = node.post(&format!("/api/stream/{id}/events"), &event).await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    let end = r#"{"type":"completed","data":{"tokens":8},"terminal":true}"#;
    assert_eq!(node.post(&format!("/api/stream/{id}/events"), end).await.0, StatusCode::ACCEPTED);
}

/// Requests a stream from a node, and returns all bytes that the node sends.
async fn transcript(node: &Server, path: &str) -> Vec<u8> {
    let mut connection = TcpStream::connect(node.address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut transcript = Vec::new();
    connection.read_to_end(&mut transcript).await.unwrap();
    transcript
}

/// Reads a stream from the first node over a connection that is cut as given, and the rest from the second node.
async fn read_with_cut(first: &Server, second: &Server, path: &str, cut: (u64, End)) -> Reader {
    let to = |node: &Server, cut| Plan { node: node.address, cut };
    let front = Front::start([to(first, Some(cut)), to(second, None)]).await;
    let mut reader = Reader::of(get(&front.url(path))).without_delays();
    reader.until_end().await;
    reader.assert_has_all(TOKENS, StreamState::Completed);
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_be_cut_at_each_byte_of_a_transcript() {
    let nodes = Nodes::start(&[]);
    let path = "/api/stream/published";
    publish(&nodes.a, "published").await;
    let transcript = transcript(&nodes.a, path).await;
    let text = String::from_utf8_lossy(&transcript);
    assert!(text.contains("ä€𝄞7") && text.ends_with("0\r\n\r\n"), "the response is incomplete: {text}");

    let ends = [End::Finish, End::Reset];
    let cuts = (0..=transcript.len() as u64).flat_map(|byte| ends.map(|end| (byte, end)));
    let readers = iter(cuts).map(async |(byte, end)| {
        // The nodes take turns as the first one.
        let (first, second) = if byte % 2 == 0 { (&nodes.a, &nodes.b) } else { (&nodes.b, &nodes.a) };
        read_with_cut(first, second, path, (byte, end)).await
    });
    let readers: Vec<_> = readers.buffer_unordered(16).collect().await;
    assert_eq!(readers.len(), 2 * (transcript.len() + 1));
    let were_cut = readers.iter().filter(|reader| !reader.cuts.is_empty()).count();
    let resumed = readers.iter().filter(|reader| reader.connected == 2).count();
    eprintln!(
        "{} bytes: {} readers, {were_cut} were cut, {resumed} of them within a response",
        transcript.len(),
        readers.len()
    );
    assert!(were_cut > transcript.len() && resumed > transcript.len() / 2, "too few connections were cut");
}

/// Each connection is cut after a few hundred bytes, and the next one leads to the other node.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_stream_survives_cut_after_cut() {
    let nodes = Nodes::start(&[]);
    // Enough bytes for the head and some events: the client gives up after several connections without an event.
    let plans = (0..40_u64).map(|visit| Plan {
        node: if visit % 2 == 0 { nodes.a.address } else { nodes.b.address },
        cut: Some((700 + visit * 37 % 400, if visit % 3 == 0 { End::Finish } else { End::Reset })),
    });
    let last = Plan { node: nodes.b.address, cut: None };
    let front = Front::start(plans.chain([last])).await;
    let mut reader = Reader::of(get(&front.url("/api/stream/running?n=400&rate=400"))).without_delays();
    reader.until_end().await;
    reader.assert_has_all(400, StreamState::Completed);
    assert_eq!((reader.cuts.len(), front.connections()), (40, 41));
    assert_eq!(nodes.a.figure("started").await + nodes.b.figure("started").await, 1, "the work was done once");
}
