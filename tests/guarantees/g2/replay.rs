//! G2: what a client saw can be replayed.

use std::time::Duration;

use resilient_sse::{
    Disconnect, Durability, MemoryStore, StreamId,
    test_util::{Fault, FaultStore},
};

use crate::{
    stage::Stage,
    support::handlers::{Handler, Script, app},
};

/// A store over a network: nothing is recorded before the guardian is polled.
fn remote() -> Stage {
    Stage::on(FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)).batched(), 1, |hub| hub)
}

#[tokio::test(start_paused = true)]
async fn g2_before_send_gives_nothing_that_is_not_stored() {
    let mut stage = remote();
    let (script, gate) = Script::events(5).gated();
    let handler = Handler::plays(script);
    let layer = stage.sse().generation().id(StreamId::path("/chat/{id}")).durability(Durability::BeforeSend);
    let app = app(layer, &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.connect().await;
    for n in 1..=6 {
        gate.send_replace(n);
        assert_eq!(client.read_ready().await, 0, "event {n} was not stored yet");
        stage.step().await;
        assert_eq!(client.read_ready().await, 1, "event {n} is stored");
        let top = stage.sse().registry().stream(client.key()).await.unwrap().unwrap().top;
        assert_eq!(Some(top), client.witness.at());
    }
    client.leave();
    client.has_all(5).await;
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g2_buffered_is_at_most_1024_events_ahead() {
    let mut stage = remote();
    let (script, gate) = Script::events(3000).gated();
    let handler = Handler::plays(script);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.connect().await;
    gate.send_replace(3000);
    let mut at_once = 0;
    loop {
        match client.read_ready().await {
            0 => break,
            events => at_once += events,
        }
    }
    assert!((1024 - 64..=1024).contains(&at_once), "{at_once}");
    for _ in 0..40 {
        stage.step().await;
        client.read_ready().await;
    }
    assert_eq!(client.witness.data.len(), 3000);
    gate.send_replace(3001);
    assert_eq!(client.read_ready().await, 0, "a terminal event is always stored first");
    stage.step().await;
    assert_eq!(client.read_ready().await, 1);
    client.leave();
    client.has_all(3000).await;
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g2_buffered_is_at_most_100_ms_ahead() {
    let mut stage = remote();
    let (script, gate) = Script::events(20).gated();
    let handler = Handler::plays(script);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.connect().await;
    stage.step().await;
    gate.send_replace(1);
    assert_eq!(client.read_ready().await, 1);
    tokio::time::advance(Duration::from_millis(99)).await;
    gate.send_replace(2);
    assert_eq!(client.read_ready().await, 1);
    tokio::time::advance(Duration::from_millis(2)).await;
    gate.send_replace(3);
    assert_eq!(client.read_ready().await, 0, "event 1 has waited for more than 100 ms");
    stage.step().await;
    assert_eq!(client.read_ready().await, 1);
    gate.send_replace(21);
    for _ in 0..3 {
        client.read_ready().await;
        stage.step().await;
    }
    client.read_to_end().await;
    client.has_all(20).await;
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g2_a_fenced_producer_s_unstored_events_reach_nobody() {
    for stopped in [false, true] {
        let mut stage = Stage::nodes(2, |hub| hub);
        let (script, gate) = Script::events(5).gated();
        let handler = Handler::plays(script);
        let apps: Vec<_> = stage
            .hubs
            .iter()
            .map(|hub| {
                let layer = hub.sse.layer().id(StreamId::path("/{id}")).on_disconnect(Disconnect::Interrupt);
                app(layer.durability(Durability::BeforeSend), &handler)
            })
            .collect();
        // The first node's guardian is not polled, so the node looks dead.
        stage.advance_only(&[1], Duration::from_secs(40)).await;
        let mut client = stage.client(&apps[0], "/a");
        client.connect().await;
        gate.send_replace(2);
        client.read(2).await;
        let mut next = stage.client(&apps[1], "/a");
        if stopped {
            stage.hubs[1].sse.streams().stop(&client.key().owner, &client.key().id).await.unwrap();
        } else {
            stage.advance_only(&[1], Duration::from_secs(61)).await;
            next.connect().await;
        }
        gate.send_replace(3);
        client.read_to_end().await;
        let expected = if stopped { 3 } else { 2 };
        assert_eq!(client.witness.data.len(), expected, "{:?}", client.witness.data);
        assert_eq!(client.witness.ended.is_some(), stopped);
        gate.send_replace(6);
        if !stopped {
            next.read_to_end().await;
            client.finish().await;
            assert_eq!(client.witness.restarts, 1);
        }
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g2_metadata_is_stored_before_the_next_event() {
    let mut stage = remote();
    let (script, gate) = Script::events(2).gated();
    let handler = Handler::new(move |call| {
        call.context.as_ref().unwrap().metadata("job", "7").unwrap();
        call.stream(&script)
    });
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.connect().await;
    gate.send_replace(3);
    stage.store.fail_on("append", Fault::Refuse);
    stage.step().await;
    assert_eq!(client.read_ready().await, 0);
    stage.store.heal();
    stage.advance(Duration::from_secs(1)).await;
    client.read_to_end().await;
    client.has_all(2).await;
    let info = stage.sse().registry().stream(client.key()).await.unwrap().unwrap();
    assert_eq!(info.metadata, [("job".to_owned(), "7".to_owned())]);
    stage.verdict().await;
}
