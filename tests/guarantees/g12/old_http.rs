//! A peer that speaks HTTP/1.0, as nginx does where it is not told otherwise: its response is over when the connection
//! closes, so that it cannot see that a body broke off.

use resilient_sse::{Voice, test_util::Fault};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    g12::{
        client::{PATIENCE, sdk},
        stage::{Stage, Transport},
    },
    support::logged::Logged,
};

/// A connection that receives a response.
struct Old {
    stream: TcpStream,
    text: String,
}

impl Old {
    async fn ask(stage: &Stage, node: usize, request: &str, headers: &str) -> Self {
        let mut stream = stage.nodes[node].connect().await;
        stream.write_all(format!("{request} HTTP/1.0\r\nhost: test\r\n{headers}\r\n").as_bytes()).await.unwrap();
        Self { stream, text: String::new() }
    }

    async fn until(mut self, text: &str) -> Self {
        while !self.text.contains(text) {
            assert!(self.more().await, "it ended before {text:?}: {:?}", self.text);
        }
        self
    }

    async fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = timeout(PATIENCE, self.stream.read(&mut bytes)).await.expect("in time").expect("no reset");
        self.text.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
        count > 0
    }

    /// Returns all bytes of the response, once the connection is closed.
    async fn finish(mut self) -> String {
        while self.more().await {}
        self.text
    }
}

#[tokio::test]
async fn g12_over_http_1_0_an_unfinished_stream_is_told_where_the_voice_has_a_word_for_it() {
    for voice in [Voice::Named, Voice::Json, Voice::OpenAi, Voice::Silent] {
        let stage = Stage::new(Transport::Http1, voice, |hub| hub).await;
        let _producing = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
        let follower = Old::ask(&stage, 1, "GET /generation/x", "accept: text/event-stream\r\n").await;
        let follower = follower.until("event-3").await;
        stage.drain(1);
        let text = follower.finish().await;
        assert!(!text.contains("completed") && !text.contains("failed"), "no terminal event: {text}");
        assert_eq!(text.contains(r#"{"error":{"code":"shutdown""#), voice == Voice::OpenAi, "{voice:?}: {text}");
        assert!(text.contains("retry: "), "{voice:?}: {text}");
    }
}

#[tokio::test]
async fn g12_over_http_1_0_only_an_event_source_is_told_to_come_again_by_a_body() {
    for voice in [Voice::Named, Voice::OpenAi] {
        let stage = Stage::new(Transport::Http1, voice, |hub| hub).await;
        stage.store.fail(Fault::Refuse);
        let cursor = "last-event-id: e1700000000000-3\r\n";
        for (request, accept) in [("GET", ""), ("GET", "accept: */*\r\n"), ("POST", "accept: text/event-stream\r\n")] {
            let request = format!("{request} /generation/x");
            let text = Old::ask(&stage, 0, &request, &format!("{accept}{cursor}")).await.finish().await;
            assert!(text.starts_with("HTTP/1.0 503 ") && text.contains("retry-after: "), "{request} {accept}: {text}");
        }
        let by_name = format!("accept: text/event-stream\r\n{cursor}");
        let text = Old::ask(&stage, 0, "GET /generation/x", &by_name).await.finish().await;
        assert!(text.starts_with("HTTP/1.0 200 ") && text.contains("\r\n\r\nretry: "), "{text}");
    }
}

/// Without the warning nobody would notice before a truncated answer is taken for a whole one.
#[tokio::test]
async fn g12_a_stream_over_http_1_0_is_warned_of_once_a_minute() {
    for route in ["/generation/x?then=completed", "/relay/x", "/generation/x?then=error"] {
        let logged = Logged::new();
        let said = || logged.errors().iter().filter(|line| line.contains("proxy_http_version 1.1")).count();
        let stage = Stage::new(Transport::Http1, Voice::Named, |hub| hub).await;
        stage.ask(0, sdk("/generation/x?then=completed")).await.finish().await;
        assert_eq!(said(), 0, "{route}: not of HTTP/1.1");
        Old::ask(&stage, 0, "GET /nothing", "").await.finish().await;
        Old::ask(&stage, 0, "GET /feed/x?then=eof", "").await.finish().await;
        assert_eq!(said(), 0, "{route}: not of what is no stream, or a feed, whose responses may end cleanly");
        for _ in 0..3 {
            Old::ask(&stage, 0, &format!("GET {route}"), "").await.finish().await;
        }
        assert_eq!(said(), usize::from(cfg!(feature = "tracing")), "{route}");
    }
}
