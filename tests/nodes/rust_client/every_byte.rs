//! A connection that is cut at each byte of a transcript.

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

/// How many tokens the transcript has.
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

/// All that a node says over a connection to a client of this stream.
async fn transcript(node: &Server, path: &str) -> Vec<u8> {
    let mut connection = TcpStream::connect(node.address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut transcript = Vec::new();
    connection.read_to_end(&mut transcript).await.unwrap();
    transcript
}

/// Reads a stream over a connection that is cut after so many bytes of the reply, and then over one to the other node.
async fn survives(first: &Server, second: &Server, path: &str, cut: (u64, End)) -> Reader {
    let to = |node: &Server, cut| Plan { node: node.address, cut };
    let front = Front::start([to(first, Some(cut)), to(second, None)]).await;
    let mut reader = Reader::of(get(&front.url(path))).hasty();
    reader.until_end().await;
    reader.has_all(TOKENS, StreamState::Completed);
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_be_cut_at_each_byte_of_a_transcript() {
    let nodes = Nodes::start(&[]);
    let path = "/api/stream/told";
    publish(&nodes.a, "told").await;
    let transcript = transcript(&nodes.a, path).await;
    let text = String::from_utf8_lossy(&transcript);
    assert!(text.contains("ä€𝄞7") && text.ends_with("0\r\n\r\n"), "it is whole: {text}");

    let ends = [End::Finish, End::Reset];
    let places = (0..=transcript.len() as u64).flat_map(|byte| ends.map(|end| (byte, end)));
    let survivors = iter(places).map(async |(byte, end)| {
        // Each node is the first one in turn.
        let (first, second) = if byte % 2 == 0 { (&nodes.a, &nodes.b) } else { (&nodes.b, &nodes.a) };
        survives(first, second, path, (byte, end)).await
    });
    let survivors: Vec<_> = survivors.buffer_unordered(16).collect().await;
    assert_eq!(survivors.len(), 2 * (transcript.len() + 1));
    let were_cut = survivors.iter().filter(|reader| !reader.cuts.is_empty()).count();
    let resumed = survivors.iter().filter(|reader| reader.connected == 2).count();
    eprintln!(
        "{} bytes: {} readers, {were_cut} were cut, {resumed} of them within a response",
        transcript.len(),
        survivors.len()
    );
    assert!(were_cut > transcript.len() && resumed > transcript.len() / 2, "the front does cut");
}

/// A stream that runs, whose connections live for a few hundred bytes each and lead to the nodes in turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_stream_survives_cut_after_cut() {
    let nodes = Nodes::start(&[]);
    // Enough for the head and some events: a connection that brings no event is an attempt without one.
    let plans = (0..40_u64).map(|visit| Plan {
        node: if visit % 2 == 0 { nodes.a.address } else { nodes.b.address },
        cut: Some((700 + visit * 37 % 400, if visit % 3 == 0 { End::Finish } else { End::Reset })),
    });
    let last = Plan { node: nodes.b.address, cut: None };
    let front = Front::start(plans.chain([last])).await;
    let mut reader = Reader::of(get(&front.url("/api/stream/running?n=400&rate=400"))).hasty();
    reader.until_end().await;
    reader.has_all(400, StreamState::Completed);
    assert_eq!((reader.cuts.len(), front.connections()), (40, 41));
    assert_eq!(nodes.a.figure("started").await + nodes.b.figure("started").await, 1, "the work was done once");
}
