//! The connection to the server: cut, one-sided, half open.

use std::time::Duration;

use resilient_sse::Durability;

use crate::{
    servers::{
        client::{Client, Listening},
        stage::{Node, Stage, for_a_while, quick, until},
    },
    support::redis::{End, Proxy, RedisServer},
};

const STREAMS: usize = 6;

/// Busy streams of a node behind a proxy, half of them waiting for each acknowledgement.
async fn busy(proxy: &Proxy) -> (Stage, [Node; 2], Vec<Listening>) {
    let stage = Stage::every(Duration::from_millis(5));
    let before_send = |hub| quick(hub).durability(Durability::BeforeSend);
    let nodes = [stage.node(&proxy.url(), quick).await, stage.node(&proxy.url(), before_send).await];
    let mut live = Vec::new();
    for number in 0..STREAMS {
        let client = stage.client(&nodes[number % 2].generation, &format!("busy-{number}")).attached().await;
        client.hears(20).await;
        live.push(client);
    }
    (stage, nodes, live)
}

/// No event is lost or doubled, neither for the clients nor in the log.
async fn all_is_there(stage: Stage, nodes: [Node; 2], live: Vec<Listening>) {
    for node in &nodes {
        node.until_recording().await;
    }
    stage.finish();
    for client in live {
        let client: Client = client.done().await;
        let made = client.has_all();
        stage.check_delays(&client, usize::MAX);
        let late = stage.client(&nodes[0].generation, client.witness.key.id.as_str()).stay().await;
        assert_eq!(late.has_all(), made);
    }
    for node in &nodes {
        assert_eq!((node.sse.health().lost, node.sse.health().orphaned), (0, 0));
    }
    assert_eq!(stage.runs() as usize, STREAMS);
    stage.verdict(&[&nodes[0], &nodes[1]], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_connections_that_are_cut_in_mid_pipeline() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let (stage, nodes, live) = busy(&proxy).await;
    // A seed, and Knuth's multiplier (TAOCP vol. 2, 3.3.4).
    let mut random = 20_261_124_u64;
    for _ in 0..40 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (before, forwarded) = (proxy.connections(), proxy.request_bytes());
        let bytes = 1 + (random >> 33) % 5000;
        proxy.cut_after_bytes(bytes);
        until("a cut, and new connections", async || {
            proxy.request_bytes() > forwarded + bytes && proxy.connections() >= before + 2
        })
        .await;
    }
    all_is_there(stage, nodes, live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_replies_that_are_lost() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let (stage, nodes, live) = busy(&proxy).await;
    for lost_for in [10, 20, 50, 100, 200, 300, 700, 10, 20, 50, 100] {
        proxy.drop_replies(true);
        for_a_while(Duration::from_millis(lost_for)).await;
        // A connection that comes meanwhile would take later replies for those that it lost.
        proxy.refuse(true);
        proxy.cut(if lost_for % 3 == 0 { End::Finish } else { End::Reset });
        proxy.drop_replies(false);
        proxy.refuse(false);
        for node in &nodes {
            node.until_recording().await;
        }
    }
    all_is_there(stage, nodes, live).await;
}

/// The existing connections silently lead nowhere. New ones would work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_a_half_open_connection_is_replaced() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let (stage, nodes, live) = busy(&proxy).await;
    let follower = stage.client(&nodes[1].generation, "busy-0").attached().await;
    follower.hears(20).await;
    let recorded = nodes[0].sse.health().recorded;
    proxy.strand();
    let begun = tokio::time::Instant::now();
    for node in &nodes {
        node.until_recording().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    assert!(nodes[0].sse.health().recorded > recorded);
    follower.hears(20).await;
    all_is_there(stage, nodes, live).await;
    follower.done().await.has_all();
}
