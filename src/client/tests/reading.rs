//! The updates that a source yields for the bytes of responses.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::*;

#[tokio::test(start_paused = true)]
async fn the_cursor_is_that_of_the_last_event_that_was_given() {
    let server = Server::with([
        Answer::events(["id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\n\n"]).then(Part::Break),
        Answer::status(204),
    ]);
    let mut source = server.get().last_event_id("0").build();
    let mut cursors = Vec::new();
    while let Some(update) = source.next().await {
        cursors.push(format!("{} {}", words(&update), source.last_event_id()));
    }
    // An id without an event becomes the cursor once the events before it were yielded.
    assert_eq!(cursors, ["connected 0", "a 1", "b 2", "cut: the response broke off 3", "ended: - 3"]);
    assert_eq!(server.cursors(), ["0", "3"]);
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_after_two_and_a_half_heartbeats() {
    let beat = || Part::from(": heartbeat\n");
    let wait = |seconds| Part::Wait(Duration::from_secs(seconds));
    let alive = Answer::events([Part::from("data: a\n\n"), wait(37), beat(), wait(37), beat()]).then(Part::Hang);
    let server = Server::with([alive.header("x-stream-heartbeat", "15"), Answer::status(204)]);
    let began = Instant::now();
    let mut source = server.get().build();
    assert_eq!(all(&mut source).await, ["connected", "a", "cut: nothing came for 37.5s", "ended: -"]);
    let silent_since = Duration::from_secs(74);
    assert!(
        began.elapsed() >= silent_since + Duration::from_millis(37_500)
            && began.elapsed() < silent_since + Duration::from_secs(39)
    );
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_takes_its_time_does_not_make_a_connection_silent() {
    // The scripted body begins a wait only when the source is polled again.
    let wait = || Part::Wait(Duration::from_secs(2));
    let parts =
        [Part::from("data: a\n\n"), wait(), "data: b\n\n".into(), wait(), "event: completed\ndata: c\n\n".into()];
    let server = Server::with([Answer::events(parts).header("x-stream-heartbeat", "1")]);
    let mut source = server.get().build();
    let mut told = Vec::new();
    while let Some(update) = source.next().await {
        told.push(words(&update));
        sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(told, ["connected", "a", "b", "ended: c"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_heartbeat_to_expect_silence_means_nothing() {
    let parts =
        || Answer::events([Part::Wait(Duration::from_secs(80_000)), Part::from("event: completed\ndata: c\n\n")]);
    assert_eq!(all(&mut Server::with([parts()]).get().build()).await, ["connected", "ended: c"]);
    let mut told = Server::with([parts(), Answer::status(204)]).get().heartbeat(Duration::from_secs(10)).build();
    assert_eq!(all(&mut told).await[1], "cut: nothing came for 25s");
}

#[tokio::test(start_paused = true)]
async fn what_follows_the_terminal_event_is_not_read() {
    let server = Server::with([Answer::events(["event: failed\ndata: x\n\ndata: more\n\n"]).then(Part::Hang)]);
    assert_eq!(all(&mut server.get().build()).await, ["connected", "ended: x"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_voice_of_openai_is_asked_for_from_its_beginning() {
    let error = r#"data: {"error":{"message":"the stream was started over","type":"stream_error","code":"restart"}}"#;
    let server = Server::with([
        Answer::events([format!("id: e1-7\ndata: old\n\n{error}\n\n").as_str()]).then(Part::Break),
        Answer::events(["id: e9-1\ndata: new\n\nid: e10-0\ndata: [DONE]\n\n"]),
    ]);
    let mut source = server.get().build();
    let mut told = Vec::new();
    while let Some(update) = source.next().await {
        if let Ok(Update::Cut(cut)) = &update {
            assert_eq!(cut.reason.as_deref(), Some("restart"));
        }
        told.push(words(&update));
    }
    let cut = "cut: the response broke off";
    assert_eq!(told, ["connected", "old", "restart", cut, "connected", "new", "ended: [DONE]"]);
    assert_eq!(server.cursors(), ["", ""]);
}

#[tokio::test]
async fn a_body_that_is_always_ready_lets_others_have_their_turn() {
    let server = Server::with([Answer::events(std::iter::repeat_n(": x\n", 3_000_000))]);
    let mut source = server.get().build();
    assert_eq!(words(&source.next().await.unwrap()), "connected");
    assert!(timeout(Duration::from_millis(1), source.next()).await.is_err(), "it could be interrupted");
}

/// Splits a body at every byte, and polls with a new future each millisecond. No event is lost or comes twice.
#[tokio::test(start_paused = true)]
async fn next_can_be_dropped_anywhere() {
    let text = "id: e1-1\ndata: ä\n\nid: e1-2\ndata: b\n\n";
    let slow = |text: &str| {
        let bytes = bytes::Bytes::copy_from_slice(text.as_bytes());
        let parts =
            (0..bytes.len()).flat_map(|at| [Part::Data(bytes.slice(at..=at)), Part::Wait(Duration::from_millis(2))]);
        Answer::events(parts.collect::<Vec<_>>())
    };
    let server = Server::with([
        slow(text).then(Part::Break),
        Answer::status(503),
        slow("id: e2-0\nevent: completed\ndata: c\n\n"),
    ]);
    let mut source = server.get().build();
    let mut told = Vec::new();
    loop {
        match timeout(Duration::from_millis(1), source.next()).await {
            Ok(Some(update)) => told.push(words(&update)),
            Ok(None) => break,
            Err(_) => {}
        }
    }
    let (broken, refused) = ("cut: the response broke off", "cut: the server answered 503 Service Unavailable");
    assert_eq!(told, ["connected", "ä", "b", broken, refused, "connected", "ended: c"]);
    assert_eq!(server.cursors(), ["", "e1-2", "e1-2"]);
}

/// An empty id takes the cursor back. What the library says after it is still told apart from events.
#[tokio::test(start_paused = true)]
async fn a_cursor_that_was_taken_back_hides_no_message_of_the_library() {
    let server = Server::with([
        Answer::events(["id: e5-1\ndata: a\n\n"]).then(Part::Break),
        Answer::events(["retry: 10\nid\n\n"]),
        Answer::events(["event: connected\ndata: {\"streamId\":\"x\"}\n\nid: e9-4\ndata: b\n\n"]).then(Part::Break),
        Answer::status(204),
    ]);
    let mut source = server.get().build();
    let told = all(&mut source).await;
    let events: Vec<_> = told.iter().filter(|told| !told.starts_with("cut")).collect();
    assert_eq!(
        events,
        ["connected", "a", "connected", "connected", "b", "ended: -"],
        "no restart and no gap: {told:?}"
    );
}
