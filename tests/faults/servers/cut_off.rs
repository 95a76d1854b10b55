//! One node alone cannot reach the server, or is paused: guarantee G5's exception, and G4 afterwards.

use resilient_sse::StreamState;
use tokio::time::Instant;

use crate::{
    servers::stage::{Node, STALE, Stage, quick, until},
    support::redis::{End, Proxy, RedisServer},
};

#[derive(Clone, Copy)]
enum Cut {
    Refused,
    Frozen,
    /// The node's guardian is not polled either.
    Paused,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_a_node_that_cannot_connect_is_fenced_and_serves_on() {
    cut_off(Cut::Refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_a_node_whose_network_hangs_is_fenced_and_serves_on() {
    cut_off(Cut::Frozen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_a_node_that_is_paused_is_fenced_and_serves_on() {
    cut_off(Cut::Paused).await;
}

async fn cut_off(cut: Cut) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let stage = Stage::new();
    let [lonely, other] = [stage.node(&proxy.url(), quick).await, stage.node(&server.url(), quick).await];
    // The node's own clients see events that no other client sees.
    let live = stage.client_apart(&lonely.generation, "a").attached_once().await;
    let silent = stage.client_apart(&lonely.generation, "silent").attached_once().await;
    let feed = stage.client_apart(&lonely.feed, "feed").attached_once().await;
    let safe = stage.client(&other.generation, "safe").attached().await;
    live.hears(20).await;
    let followers = ["a", "silent"].map(|id| stage.client(&other.generation, id).staying());
    let following = stage.client(&other.feed, "feed").attached_once().await;
    following.hears(5).await;
    for node in [&lonely, &other] {
        node.until_trusting().await;
    }

    let begun = Instant::now();
    match cut {
        Cut::Refused => {
            proxy.refuse(true);
            proxy.cut(End::Reset);
        }
        Cut::Frozen => proxy.freeze(true),
        Cut::Paused => {
            proxy.freeze(true);
            lonely.pause(true);
        }
    }
    other.until_state("a", StreamState::Orphaned).await;
    assert!(begun.elapsed() > STALE * 2 / 3, "no sooner than its last beat says: {:?}", begun.elapsed());
    other.until_state("silent", StreamState::Orphaned).await;
    other.until_state("feed", StreamState::Interrupted).await;
    // Followers are told at once. A feed's are admitted anew.
    for follower in followers {
        let follower = follower.done().await;
        assert_eq!(follower.witness.names.last().unwrap(), "orphaned");
    }
    let following = following.done().await;
    assert_eq!((following.witness.ended, following.witness.gaps), (None, 0));
    let runs = stage.runs();
    let mut again = following;
    again.app = other.feed.clone();
    let again = again.staying();
    again.hears(10).await;
    assert_eq!(stage.runs(), runs + 1, "a feed runs anew");
    // The clients of the node are served all the while.
    live.hears(20).await;
    feed.hears(20).await;

    let logs = [log(&other, "a").await, log(&other, "silent").await];
    proxy.refuse(false);
    proxy.freeze(false);
    lonely.pause(false);
    // The feed has another producer now. The old one sends nothing more.
    let feed = feed.done().await;
    assert_eq!(feed.witness.ended, None);
    until("it is told of all", async || lonely.sse.health().active == 0).await;
    live.hears(20).await;
    stage.finish();
    let [live, silent] = [live.done().await, silent.done().await];
    for client in [&live, &silent] {
        client.has_all();
        stage.check_delays(client, 1);
    }
    let again = again.done().await;
    assert_eq!(again.witness.restarts, 1);
    safe.done().await.has_all();
    assert_eq!([log(&other, "a").await, log(&other, "silent").await], logs, "late writes are refused");
    for id in ["a", "silent"] {
        assert_eq!(other.info(id).await.unwrap().state, StreamState::Orphaned);
        assert_eq!(other.recover(id).await["status"], "orphaned");
    }
    assert_eq!((lonely.sse.health().orphaned, other.sse.health().orphaned), (0, 2));
    stage.verdict(&[&other, &lonely], false).await;
}

async fn log(node: &Node, id: &str) -> usize {
    node.sse
        .completions()
        .events(&crate::servers::stage::key(id), None, usize::MAX)
        .await
        .unwrap()
        .unwrap()
        .records
        .len()
}
