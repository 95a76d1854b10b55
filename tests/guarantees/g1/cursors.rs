//! G1: cursors of every kind, on streams in every state.

use std::time::Duration;

use http::StatusCode;
use resilient_sse::{Disconnect, StreamId, StreamState};

use crate::{
    client::Client,
    stage::Stage,
    support::{
        checker::Cursor,
        handlers::{App, Finish, Handler, Script, app},
    },
};

fn chat(stage: &Stage, disconnect: Disconnect, handler: &Handler) -> App {
    app(stage.sse().layer().id(StreamId::path("/chat/{id}")).on_disconnect(disconnect), handler)
}

/// A client that has seen all of a stream of five events.
async fn ended(stage: &Stage, app: &App) -> Client {
    let mut client = stage.client(app, "/chat/a");
    client.finish().await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Completed));
    client
}

#[tokio::test(start_paused = true)]
async fn g1_a_cursor_that_says_nothing_is_told_and_given_everything() {
    let ours = ["other.e1700000000000-2", "e17-3", "e1800000000000-3", "e1700000000000-03", "e-"];
    // Ids that hosts write themselves, such as those of a Redis stream.
    let foreign = ["junk", "1700000000000-2", "0", "0-0", "-", "🦀", "*"];
    for cursor in ours.into_iter().chain(foreign) {
        for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
            let stage = Stage::new();
            let handler = Handler::events(5);
            let app = chat(&stage, disconnect, &handler);
            ended(&stage, &app).await;
            let mut client = stage.client(&app, "/chat/a");
            assert_eq!(client.connect_with(Some(cursor), Cursor::Foreign).await, StatusCode::OK, "{cursor}");
            assert_eq!(client.read_to_end().await, 6, "{cursor}");
            assert_eq!(client.witness.names[0], "gap", "{cursor}");
            assert_eq!(handler.calls(), 1);
            stage.verdict().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g1_a_cursor_that_says_nothing_on_a_running_stream() {
    for cursor in ["junk", "1700000000000-2", "other.e1700000000000-2", "e17-3"] {
        let stage = Stage::new();
        let handler = Handler::events(10);
        let app = chat(&stage, Disconnect::DETACH, &handler);
        let mut producer = stage.client(&app, "/chat/a");
        producer.connect().await;
        producer.read(4).await;
        let mut client = stage.client(&app, "/chat/a");
        client.connect_with(Some(cursor), Cursor::Foreign).await;
        tokio::join!(client.read_to_end(), producer.read_to_end());
        assert_eq!((client.witness.gaps, client.witness.data.len()), (1, 11));
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g1_a_cursor_that_says_nothing_of_a_new_stream() {
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
        let stage = Stage::new();
        let handler = Handler::events(5);
        let app = chat(&stage, disconnect, &handler);
        let mut client = stage.client(&app, "/chat/a");
        assert_eq!(client.connect_with(Some("junk"), Cursor::Foreign).await, StatusCode::OK);
        assert_eq!(client.read_to_end().await, 6);
        assert_eq!(handler.calls(), 1);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g1_a_cursor_ahead_of_the_log_goes_on_without_a_gap() {
    let stage = Stage::new();
    let (script, gate) = Script::events(5).gated();
    let handler = Handler::plays(script);
    let app = chat(&stage, Disconnect::DETACH, &handler);
    let mut producer = stage.client(&app, "/chat/a");
    producer.connect().await;
    gate.send_replace(2);
    producer.read(2).await;
    let epoch = producer.witness.at().unwrap().epoch;
    let mut ahead = stage.client(&app, "/chat/a");
    ahead.connect_with(Some(&format!("e{epoch}-4")), Cursor::None).await;
    gate.send_replace(6);
    producer.read_to_end().await;
    assert_eq!(ahead.read_to_end().await, 2);
    assert_eq!(ahead.witness.gaps, 0);
    assert!(ahead.witness.data[0].ends_with(":5"));
    // The same once the stream has ended, also with a cursor beyond its last event.
    let mut late = stage.client(&app, "/chat/a");
    late.connect_with(Some(&format!("e{epoch}-9")), Cursor::None).await;
    assert_eq!(late.read_to_end().await, 1);
    assert_eq!(late.witness.names, ["completed"]);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_the_end_is_204_from_then_on() {
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
        let stage = Stage::new();
        let handler = Handler::events(5);
        let app = chat(&stage, disconnect, &handler);
        let mut client = ended(&stage, &app).await;
        for _ in 0..3 {
            client.has_all(5).await;
        }
        // A client without a cursor, and one in the middle, get the events that they lack.
        let mut fresh = stage.client(&app, "/chat/a");
        assert_eq!(fresh.finish().await, 6);
        let mut live = stage.client(&app, "/chat/a");
        live.connect_with(Some("$"), Cursor::None).await;
        assert_eq!(live.read_to_end().await, 1);
        assert_eq!(handler.calls(), 1);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g1_an_expired_stream_is_404_where_work_is_not_done_twice() {
    for disconnect in [Disconnect::Cancel, Disconnect::DETACH] {
        for cursor in [None, Some(2)] {
            let mut stage = Stage::new();
            let handler = Handler::events(5);
            let app = chat(&stage, disconnect, &handler);
            let mut client = ended(&stage, &app).await;
            let end = client.witness.at().unwrap();
            stage.advance(Duration::from_secs(300)).await;
            let cursor = cursor.map_or(end.to_string(), |seq| format!("e{}-{seq}", end.epoch - 1));
            // A client that has the end has everything.
            let told = if cursor == end.to_string() { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND };
            assert_eq!(client.connect_with(Some(&cursor), Cursor::Foreign).await, told);
            assert_eq!(handler.calls(), 1, "paid for once");
            // Without a cursor it is a new stream, whose epoch is higher.
            let mut fresh = stage.client(&app, "/chat/a");
            fresh.finish().await;
            assert!(fresh.witness.at().unwrap() > end);
            assert_eq!(handler.calls(), 2);
            stage.verdict().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g1_an_expired_stream_is_a_gap_and_a_new_run_where_it_may_run_again() {
    let mut stage = Stage::new();
    let handler = Handler::events(5);
    let app = chat(&stage, Disconnect::Interrupt, &handler);
    let mut client = ended(&stage, &app).await;
    let end = client.witness.at().unwrap();
    stage.advance(Duration::from_secs(300)).await;
    // A client that has the end has everything, so a laptop that wakes up does not start the work again.
    assert_eq!(client.connect_with(Some(&end.to_string()), Cursor::Foreign).await, StatusCode::NO_CONTENT);
    assert_eq!(handler.calls(), 1);
    let last = format!("e{}-5", end.epoch - 1);
    assert_eq!(client.connect_with(Some(&last), Cursor::Foreign).await, StatusCode::OK);
    assert_eq!(client.read_to_end().await, 6);
    assert_eq!(client.witness.gaps, 1);
    assert!(client.witness.at().unwrap() > end);
    assert_eq!(handler.calls(), 2);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_a_feed_survives_the_loss_of_process_and_store() {
    let before = Stage::new();
    let handler = Handler::plays(Script::events(10).then(Finish::Never));
    let feed = |stage: &Stage| app(stage.sse().feed().id(StreamId::path("/feed/{id}")), &handler);
    let mut client = before.client(&feed(&before), "/feed/a").endless();
    client.cut(4).await;
    let cursor = client.witness.cursor().unwrap();
    let seen = client.witness.at().unwrap();
    before.verdict().await;

    let mut after = Stage::new();
    after.advance(Duration::from_secs(1)).await;
    let mut client = after.client(&feed(&after), "/feed/a").endless();
    assert_eq!(client.connect_with(Some(&cursor), Cursor::Foreign).await, StatusCode::OK);
    assert_eq!(client.read(3).await, 3);
    assert_eq!(client.witness.names[0], "gap");
    assert!(client.witness.at().unwrap() > seen, "epochs rise with the store's clock");
    client.leave();
    assert_eq!(handler.calls(), 2);
    after.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_a_library_made_name_that_has_expired() {
    for (disconnect, status) in [(Disconnect::DETACH, 404), (Disconnect::Interrupt, 200)] {
        let mut stage = Stage::new();
        let handler = Handler::events(5);
        let app = app(stage.sse().layer().on_disconnect(disconnect), &handler);
        let mut client = stage.client(&app, "/chat").unnamed();
        client.finish().await;
        let end = client.witness.cursor().unwrap();
        stage.advance(Duration::from_secs(300)).await;
        assert_eq!(client.connect_with(Some(&end), Cursor::Foreign).await, StatusCode::NO_CONTENT, "it has everything");
        let epoch = client.witness.at().unwrap().epoch - 1;
        let cursor = format!("{}.e{epoch}-5", end.rsplit_once('.').unwrap().0);
        let got = client.connect_with(Some(&cursor), Cursor::Foreign).await;
        assert_eq!(got, status, "{disconnect:?}");
        if got == StatusCode::OK {
            assert_eq!(client.read_to_end().await, 6);
            assert_eq!(client.witness.gaps, 1);
        }
        assert_eq!(handler.calls(), if status == 404 { 1 } else { 2 });
        stage.verdict().await;
    }
}
