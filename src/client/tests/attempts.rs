//! The source tries again after a failure, and gives up after too many.

use std::time::Duration;

use tokio::time::Instant;

use super::*;

const DONE: &str = "id: e2-0\nevent: completed\ndata: bye\n\n";

#[tokio::test(start_paused = true)]
async fn a_broken_response_is_asked_for_from_after_its_last_whole_event() {
    let server = Server::with([
        Answer::events(["id: e1-1\ndata: a\n\nid: e1-2\ndata: b"]).then(Part::Break),
        Answer::events(["id: e1-2\ndata: b\n\n"]).then(Part::Break),
        Answer::events([DONE]),
    ]);
    let mut source = server.get().build();
    let cut = "cut: the response broke off";
    assert_eq!(all(&mut source).await, ["connected", "a", cut, "connected", "b", cut, "connected", "ended: bye"]);
    assert_eq!((server.cursors(), source.last_event_id()), (vec!["".into(), "e1-1".into(), "e1-2".into()], "e2-0"));
    assert_eq!(source.state(), State::Ended);
    assert!(source.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_asked_ten_times() {
    let server = Server::with([Answer::Unreachable]);
    let mut source = server.get().build();
    let mut told = all(&mut source).await;
    assert_eq!(told.pop().unwrap(), "gave up: 10 attempts in a row brought no event");
    assert_eq!((told.len(), server.asked().len(), source.state()), (9, 10, State::GaveUp));
    let waits = server.waits();
    assert!(waits.iter().all(|wait| (250..=30_000).contains(&wait.as_millis())), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn responses_without_an_event_count_as_failures() {
    let server = Server::with([
        Answer::events(["data: a\n\n"]).then(Part::Break),
        // The library's own messages, such as `connected`, do not count as events.
        Answer::events([": heartbeat\n", "event: connected\ndata: {\"streamId\":\"a\"}\n\nretry: 10\n\n"])
            .then(Part::Break),
    ]);
    let mut source = server.get().max_attempts(3).build();
    let told = all(&mut source).await;
    assert_eq!(told.iter().filter(|told| told.starts_with("cut")).count(), 3, "{told:?}");
    assert_eq!((server.asked().len(), source.attempts()), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn the_server_s_delays_are_honoured() {
    let (date, later) = ("Tue, 15 Nov 2044 08:00:00 GMT", "Tue, 15 Nov 2044 08:01:40 GMT");
    let server = Server::with([
        Answer::status(503).header("retry-after", "40"),
        Answer::status(429).header("retry-after", later).header("date", date),
        Answer::events(["retry: 70000\ndata: a"]).then(Part::Break),
        Answer::events(["data: b\n\n"]).then(Part::Break),
        // A `Retry-After` that is shorter than the last `retry:` does not shorten the wait.
        Answer::status(500).header("retry-after", "1"),
        Answer::status(204),
    ]);
    let mut source = server.get().build();
    let told = all(&mut source).await;
    assert_eq!(told.last().unwrap(), "ended: -");
    for (wait, least) in server.waits().iter().zip([40, 100, 70, 70, 70]) {
        let (least, most) = (Duration::from_secs(least), Duration::from_secs(least) * 3 / 2);
        assert!(*wait >= least && *wait <= most, "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_and_says_what_the_server_said() {
    for status in [201, 301, 400, 401, 403, 404, 408, 409, 422] {
        let refusal = Answer::status(status).header("www-authenticate", "Bearer").then("a stream id is").then(" short");
        let server = Server::with([refusal]);
        let mut source = server.get().build();
        let Some(Err(GaveUp::Refused(response))) = source.next().await else { panic!("{status} is final") };
        assert_eq!((response.status().as_u16(), &response.body()[..]), (status, &b"a stream id is short"[..]));
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert!(source.next().await.is_none());
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_even_if_its_body_never_ends() {
    let endless = Answer::Response(404, Vec::new(), vec![Part::from("x".repeat(100_000).as_str()), Part::Hang]);
    let hanging = Answer::status(404).then("why").then(Part::Hang);
    for (answer, length) in [(endless, 16 << 10), (hanging, 3)] {
        let began = Instant::now();
        let Some(Err(GaveUp::Refused(response))) = Server::with([answer]).get().build().next().await else {
            panic!("404 is final")
        };
        assert_eq!(response.body().len(), length);
        assert!(began.elapsed() <= Duration::from_secs(5));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_stream_is_final() {
    for (content_type, told) in [
        (Some("text/html"), "text/html"),
        (Some("text/event-stream; charset=latin1"), "charset=latin1"),
        (None, "it has no type"),
    ] {
        let mut answer = Answer::status(200).then("data: a\n\n");
        if let Some(content_type) = content_type {
            answer = answer.header("content-type", content_type);
        }
        let server = Server::with([answer]);
        let all = all(&mut server.get().build()).await;
        assert!(all.len() == 1 && all[0].ends_with(told), "{all:?}");
    }
    let server = Server::with([
        Answer::status(200).header("content-type", "Text/Event-Stream; charset=UTF-8"),
        Answer::status(204),
    ]);
    assert_eq!(all(&mut server.get().build()).await[0], "connected");
}

#[tokio::test(start_paused = true)]
async fn an_event_beyond_the_limit_is_final_after_what_came_before_it() {
    let server =
        Server::with([Answer::events([format!("id: e1-1\ndata: a\n\nid: e1-2\ndata: {}", "b".repeat(100)).as_str()])]);
    let mut source = server.get().max_event_bytes(64).build();
    assert_eq!(all(&mut source).await, ["connected", "a", "gave up: an event is larger than 64 bytes"]);
    assert_eq!((server.asked().len(), source.last_event_id()), (1, "e1-1"));
}

#[tokio::test(start_paused = true)]
async fn a_clean_end_is_no_end_where_the_stream_can_be_resumed() {
    let ended_early = "cut: the response ended before the stream's terminal event";
    let resumable = || Server::with([Answer::events(["id: 7\ndata: a\n\n"]), Answer::status(204)]);
    for mut source in [resumable().get().build(), resumable().post().build()] {
        assert_eq!(all(&mut source).await, ["connected", "a", ended_early, "ended: -"]);
    }
    // Without ids a repeated POST would run the work again.
    let server = Server::with([Answer::events(["data: a\n\n"])]);
    assert_eq!(all(&mut server.post().build()).await, ["connected", "a", "ended: -"]);
    assert_eq!(server.asked().len(), 1);
    // A GET is repeated, as a browser's `EventSource` would repeat it.
    let server = Server::with([Answer::events(["data: a\n\n"]), Answer::status(204)]);
    assert_eq!(all(&mut server.get().build()).await, ["connected", "a", ended_early, "ended: -"]);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_comes_is_waited_for_only_so_long() {
    let server = Server::with([Answer::Silence, Answer::status(204)]);
    let told = all(&mut server.get().build()).await;
    assert_eq!(told, ["cut: no response came within 37.5s", "ended: -"]);
    let mut source =
        Server::with([Answer::Silence, Answer::status(204)]).post().response_timeout(Duration::from_secs(2)).build();
    assert_eq!(all(&mut source).await[0], "cut: no response came within 2s");
    // A POST has no time limit for the head, since the work may take long to begin.
    let mut patient = Server::with([Answer::Silence]).post().build();
    assert!(tokio::time::timeout(Duration::from_secs(3600), patient.next()).await.is_err());
}
