//! G1: from any node.

use std::time::Duration;

use resilient_sse::{Disconnect, StreamId};

use crate::{
    stage::Stage,
    support::handlers::{Handler, Script, app},
};

#[tokio::test(start_paused = true)]
async fn g1_started_on_one_node_resumed_on_another_while_the_first_produces() {
    for cut in 0..=10 {
        let stage = Stage::nodes(2, |hub| hub);
        let handler = Handler::events(10);
        let apps: Vec<_> =
            stage.hubs.iter().map(|hub| app(hub.sse.generation().id(StreamId::path("/chat/{id}")), &handler)).collect();
        let mut client = stage.client(&apps[0], "/chat/a");
        client.cut(cut).await;
        client.app = apps[1].clone();
        client.finish().await;
        client.has_all(10).await;
        let mut whole = stage.client(&apps[1], "/chat/a");
        whole.finish().await;
        assert_eq!(client.witness.data, whole.witness.data);
        assert_eq!(handler.calls(), 1);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g1_followers_on_two_nodes_get_the_same_bytes() {
    let stage = Stage::nodes(2, |hub| hub);
    let handler = Handler::plays(Script::events(50).own_ids());
    let apps: Vec<_> = stage
        .hubs
        .iter()
        .map(|hub| {
            let layer = hub.sse.layer().id(StreamId::path("/chat/{id}")).on_disconnect(Disconnect::Cancel);
            app(layer, &handler)
        })
        .collect();
    let mut producer = stage.client(&apps[0], "/chat/a");
    producer.connect().await;
    producer.read(7).await;
    let mut near = stage.client(&apps[0], "/chat/a");
    let mut far = stage.client(&apps[1], "/chat/a");
    near.connect().await;
    far.connect().await;
    tokio::join!(producer.read_to_end(), near.read_to_end(), far.read_to_end());
    let producer = producer.events_sent();
    assert!(!producer.is_empty());
    assert_eq!(near.events_sent(), producer);
    assert_eq!(far.events_sent(), producer);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_a_client_that_wanders_between_nodes() {
    let stage = Stage::nodes(3, |hub| hub);
    let handler = Handler::plays(Script::events(40).every(Duration::from_millis(37)));
    let apps: Vec<_> =
        stage.hubs.iter().map(|hub| app(hub.sse.generation().id(StreamId::path("/{id}")), &handler)).collect();
    let mut client = stage.client(&apps[0], "/a");
    for turn in 0..8 {
        client.app = apps[turn % 3].clone();
        client.cut(turn as u64 % 6).await;
    }
    client.finish().await;
    client.has_all(40).await;
    assert_eq!(handler.calls(), 1);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g1_a_library_made_name_is_resumed_on_another_node() {
    let stage = Stage::nodes(2, |hub| hub);
    let handler = Handler::events(10);
    let apps: Vec<_> = stage.hubs.iter().map(|hub| app(hub.sse.generation(), &handler)).collect();
    let mut client = stage.client(&apps[0], "/chat").unnamed();
    client.cut(4).await;
    client.app = apps[1].clone();
    client.finish().await;
    client.has_all(10).await;
    assert_eq!(handler.calls(), 1);
    stage.verdict().await;
}
