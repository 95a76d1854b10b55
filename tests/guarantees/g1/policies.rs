//! G1 with each disconnect policy: the handler knows nothing of cursors and always starts over.

use std::time::Duration;

use http::StatusCode;
use resilient_sse::{Disconnect, StreamId, StreamState};

use crate::{
    client::Client,
    stage::Stage,
    support::{
        checker::Cursor,
        handlers::{App, Handler, Script, app},
    },
};

async fn cut_at_five(stage: &Stage, handler: &Handler, disconnect: Disconnect) -> (App, Client) {
    let app = app(stage.sse().layer().id(StreamId::path("/chat/{id}")).on_disconnect(disconnect), handler);
    let mut client = stage.client(&app, "/chat/a");
    client.cut(5).await;
    (app, client)
}

#[tokio::test(start_paused = true)]
async fn g1_unaware_handler_interrupt_runs_again_behind_a_restart() {
    let mut stage = Stage::new();
    let handler = Handler::events(10);
    let (_, mut client) = cut_at_five(&stage, &handler, Disconnect::Interrupt).await;
    assert_eq!((handler.alive(), stage.state(&client).await), (0, Some(StreamState::Interrupted)));
    stage.advance(Duration::from_secs(5)).await;
    client.finish().await;
    assert_eq!(handler.calls(), 2);
    let expected: Vec<_> =
        ["message"; 5].into_iter().chain(["restart"]).chain(["message"; 10]).chain(["completed"]).collect();
    assert_eq!(client.witness.names, expected);
    assert_eq!((client.witness.restarts, client.witness.gaps), (1, 0));
    assert!(client.witness.data[5].ends_with("#2:1"));
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_unaware_handler_goes_on_for_a_follower_whose_producing_client_left() {
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel] {
        let stage = Stage::new();
        let handler = Handler::events(10);
        let layer = stage.sse().layer().id(StreamId::path("/chat/{id}")).on_disconnect(disconnect);
        let app = app(layer, &handler);
        let mut first = stage.client(&app, "/chat/a");
        let mut second = stage.client(&app, "/chat/a");
        first.connect().await;
        first.read(2).await;
        second.connect().await;
        second.read(2).await;
        first.read(3).await;
        first.leave();
        second.finish().await;
        second.has_all(10).await;
        first.finish().await;
        first.has_all(10).await;
        assert_eq!((handler.calls(), handler.alive()), (1, 0));
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g1_unaware_handler_cancel_never_runs_twice() {
    let mut stage = Stage::new();
    let handler = Handler::events(10);
    let (_, mut client) = cut_at_five(&stage, &handler, Disconnect::Cancel).await;
    assert_eq!((handler.alive(), stage.state(&client).await), (0, Some(StreamState::Cancelled)));
    stage.advance(Duration::from_secs(5)).await;
    client.finish().await;
    assert_eq!(handler.calls(), 1);
    assert_eq!(client.witness.names.last().unwrap(), "cancelled");
    assert_eq!(client.witness.data.last().unwrap(), r#"{"reason":"disconnected"}"#);
    assert_eq!(client.connect().await, StatusCode::NO_CONTENT);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_unaware_handler_detach_is_driven_on() {
    let mut stage = Stage::new();
    let handler = Handler::events(10);
    let (_, mut client) = cut_at_five(&stage, &handler, Disconnect::DETACH).await;
    assert_eq!((handler.alive(), stage.state(&client).await), (1, Some(StreamState::Active)));
    assert_eq!(stage.sse().health().detached, 1);
    stage.advance(Duration::from_secs(5)).await;
    assert_eq!((handler.alive(), stage.state(&client).await), (0, Some(StreamState::Completed)));
    assert_eq!(stage.sse().health().unheard, 5);
    client.finish().await;
    client.has_all(10).await;
    assert_eq!(handler.calls(), 1);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_detach_ends_at_its_time_limit() {
    let mut stage = Stage::new();
    let handler = Handler::plays(Script::events(1000).every(Duration::from_secs(1)));
    let at_most = Duration::from_secs(20);
    let (_, mut client) = cut_at_five(&stage, &handler, Disconnect::Detach { at_most }).await;
    stage.advance(Duration::from_secs(19)).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Active));
    stage.advance(Duration::from_secs(2)).await;
    assert_eq!((handler.alive(), stage.state(&client).await), (0, Some(StreamState::Failed)));
    client.finish().await;
    assert_eq!(client.witness.data.last().unwrap(), r#"{"reason":"detach_timeout"}"#);
    assert_eq!((client.witness.data.len(), client.witness.gaps), (26 - 1, 0));
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_detach_ends_at_its_number_limit() {
    let mut stage = Stage::nodes(1, |hub| hub.max_detached(2));
    let handler = Handler::plays(Script::events(60).every(Duration::from_secs(1)));
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut clients: Vec<_> = (0..3).map(|n| stage.client(&app, &format!("/chat/c{n}"))).collect();
    for client in &mut clients {
        client.connect().await;
        client.read(1).await;
        client.leave();
        stage.advance(Duration::from_secs(1)).await;
    }
    stage.advance(Duration::from_secs(60)).await;
    for (n, client) in clients.iter_mut().enumerate() {
        client.finish().await;
        let end = client.witness.names.last().unwrap().clone();
        assert_eq!(end, if n > 0 { "completed" } else { "failed" }, "the one that was left longest is given up");
    }
    assert_eq!(clients[0].witness.data.last().unwrap(), r#"{"reason":"detach_limit"}"#);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_inner_ids_are_given_back_when_the_inner_service_runs_again() {
    let stage = Stage::new();
    let handler = Handler::plays(Script::events(10).own_ids());
    let (_, mut client) = cut_at_five(&stage, &handler, Disconnect::Interrupt).await;
    client.finish().await;
    assert_eq!(handler.last_event_ids(), [None, Some("own-5".to_owned())], "its own, never the library's");
    // The handler continued after its own last id, so the client has all ten events, with a restart between.
    let n: Vec<_> = client.witness.data.iter().map(|data| data.rsplit(':').next().unwrap()).collect();
    assert_eq!(n, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "end"]);
    assert_eq!(client.witness.restarts, 1);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_the_library_s_cursor_never_reaches_the_inner_service() {
    let stage = Stage::new();
    let handler = Handler::events(3);
    let app = app(stage.sse().layer().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.connect_with(Some("e1699999999999-7"), Cursor::Foreign).await;
    client.read_to_end().await;
    assert_eq!(handler.last_event_ids(), [None]);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_many_interruptions_each_behind_its_own_restart() {
    let stage = Stage::new();
    let handler = Handler::events(10);
    let (_, mut client) = cut_at_five(&stage, &handler, Disconnect::Interrupt).await;
    for _ in 0..4 {
        client.cut(3).await;
    }
    // A client that left after the first run is told of the run in between.
    let late = stage.client(&client.app, "/chat/a");
    let mut late = late;
    late.connect_with(Some("e1700000000000-2"), Cursor::None).await;
    late.read_to_end().await;
    client.finish().await;
    assert_eq!(handler.calls(), 6);
    assert_eq!(client.witness.restarts, 5);
    stage.verdict().await;
}
