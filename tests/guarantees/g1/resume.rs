//! G1: cut anywhere, and resume.

use std::time::Duration;

use resilient_sse::{Disconnect, Durability, StreamId};

use crate::{
    client::Via,
    stage::Stage,
    support::handlers::{Finish, Handler, Script, app},
};

const EVENTS: u64 = 10;

/// A client that is cut after each event in turn, on a route whose work goes on.
async fn cut_everywhere(via: Via, durability: Durability) {
    let stage = Stage::new();
    for at in 0..=EVENTS + 1 {
        let handler = Handler::events(EVENTS);
        let layer = stage.sse().generation().id(StreamId::path("/chat/{id}")).durability(durability);
        let app = app(layer, &handler);
        let mut client = stage.client(&app, &format!("/chat/c{at}"));
        client.via = via;
        client.cut(at).await;
        if at <= EVENTS {
            client.finish().await;
        }
        client.has_all(EVENTS).await;
        assert_eq!(handler.calls(), 1);
    }
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_cut_behind_every_event_and_resume_by_header() {
    cut_everywhere(Via::Header, Durability::Buffered).await;
}

#[tokio::test(start_paused = true)]
async fn g1_cut_behind_every_event_and_resume_by_query() {
    cut_everywhere(Via::Query, Durability::BeforeSend).await;
}

#[tokio::test(start_paused = true)]
async fn g1_cut_again_and_again() {
    for seed in 0..20u64 {
        let stage = Stage::new();
        let handler = Handler::events(60);
        let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
        let mut client = stage.client(&app, "/chat/a");
        let mut random = seed;
        let mut left = 60;
        while left > 0 {
            // Any well-mixed sequence does.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let step = (random >> 33) % 7;
            client.cut(step.min(left)).await;
            left -= step.min(left);
        }
        client.finish().await;
        client.has_all(60).await;
        assert_eq!(handler.calls(), 1);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g1_a_library_made_name_is_resumed_at_the_same_url_with_the_last_id_alone() {
    for cut in [0, 1, 5, EVENTS] {
        let stage = Stage::new();
        let handler = Handler::events(EVENTS);
        let app = app(stage.sse().generation(), &handler);
        let mut client = stage.client(&app, "/chat").unnamed();
        client.cut(cut).await;
        let name = client.key().id.clone();
        client.finish().await;
        if cut == 0 {
            // The client saw nothing, so it cannot name the stream and gets another one.
            assert_ne!(client.key().id, name);
            assert_eq!(handler.calls(), 2);
        } else {
            assert_eq!(client.key().id, name);
            client.has_all(EVENTS).await;
            assert_eq!(handler.calls(), 1);
        }
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g1_what_was_trimmed_is_one_gap_in_its_place() {
    let stage = Stage::nodes(1, |hub| hub.max_log_events(4));
    let handler = Handler::events(20);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.cut(3).await;
    let mut other = stage.client(&app, "/chat/a");
    other.finish().await;
    client.finish().await;
    assert_eq!(client.witness.gaps, 1);
    assert_eq!(client.witness.names[..5], ["message", "message", "message", "gap", "message"]);
    assert!(client.witness.data[3].ends_with(":17"), "{:?}", client.witness.data);
    assert_eq!(client.witness.data.len(), 3 + 4 + 1);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_a_log_bounded_in_bytes_is_trimmed_with_a_gap() {
    let stage = Stage::nodes(1, |hub| hub.max_log_bytes(40).max_event_bytes(40));
    let handler = Handler::events(20);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.cut(3).await;
    stage.client(&app, "/chat/a").finish().await;
    client.finish().await;
    assert_eq!(client.witness.gaps, 1);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_a_replay_longer_than_a_page_is_whole() {
    let stage = Stage::new();
    let handler = Handler::plays(Script::events(3000).every(Duration::ZERO));
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.cut(1).await;
    client.finish().await;
    client.has_all(3000).await;
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_followers_on_the_same_node_see_the_same() {
    let stage = Stage::new();
    let handler = Handler::events(EVENTS);
    let layer = stage.sse().layer().id(StreamId::path("/chat/{id}")).on_disconnect(Disconnect::Cancel);
    let app = app(layer, &handler);
    let mut first = stage.client(&app, "/chat/a");
    first.connect().await;
    first.read(3).await;
    let mut second = stage.client(&app, "/chat/a");
    let mut third = stage.client(&app, "/chat/a");
    second.connect().await;
    third.connect_with(Some("$"), crate::support::checker::Cursor::None).await;
    tokio::join!(first.read_to_end(), second.read_to_end(), third.read_to_end());
    assert_eq!(first.witness.data, second.witness.data);
    assert_eq!(first.witness.data[3..], third.witness.data);
    first.has_all(EVENTS).await;
    stage.verdict().await;
}

/// A page that is reloaded has no cursor: it is told that the answer's beginning is not to be had, on any node. A
/// feed's reader wants what there is.
#[tokio::test(start_paused = true)]
async fn g1_a_reader_without_a_cursor_is_told_that_the_beginning_was_trimmed() {
    for feed in [false, true] {
        // A feed never ends: it would only run again.
        for ended in [false, true].into_iter().filter(|ended| !(feed && *ended)) {
            let mut stage = Stage::nodes(2, |hub| hub.max_log_events(4));
            let finish = if ended { Finish::Event("completed") } else { Finish::Never };
            let handler = Handler::plays(Script::events(EVENTS).then(finish));
            let apps = [0, 1].map(|node: usize| {
                let sse = &stage.hubs[node].sse;
                let layer = if feed { sse.feed().max_log_events(4) } else { sse.generation().max_log_events(4) };
                app(layer.id(StreamId::path("/{id}")), &handler)
            });
            let mut first = stage.client(&apps[0], "/a");
            first.connect().await;
            first.read(EVENTS + u64::from(ended)).await;
            stage.step().await;
            for app in &apps {
                let mut reload = stage.client(app, "/a");
                reload.connect().await;
                reload.read(1).await;
                let names = &reload.witness.names;
                assert_eq!(names[0] == "gap", !feed, "feed: {feed}, ended: {ended}: {names:?}");
                let began = reload.witness.at().unwrap().seq;
                assert!((5..=9).contains(&began), "feed: {feed}, ended: {ended}: {names:?}, from {began}");
                reload.leave();
            }
            first.leave();
            stage.sse().streams().stop(&first.key().owner, &first.key().id).await.unwrap();
            stage.verdict().await;
        }
    }
}
