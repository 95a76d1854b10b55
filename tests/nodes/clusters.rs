//! Nodes on a Redis Cluster whose slots move, and whose masters change.

use std::net::SocketAddr;

use http::StatusCode;
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    addresses,
    client::{Client, Visit},
    figure, node, sum,
    support::{
        example::{Server, eventually},
        redis::{Options, RedisCluster},
    },
    trusting,
};

/// Streams that run until they are stopped, each with a client that stays where it is produced, one that stays
/// elsewhere, and one that is cut all the time and goes from node to node.
pub struct Traffic {
    ids: Vec<String>,
    staying: Vec<JoinHandle<Client>>,
    following: Vec<JoinHandle<Client>>,
    roaming: Vec<JoinHandle<Client>>,
}

impl Traffic {
    pub async fn start(a: &Server, b: &Server, streams: usize) -> Self {
        let ids: Vec<_> = (0..streams).map(|n| format!("t{n}")).collect();
        let mut traffic = Self { ids: ids.clone(), staying: Vec::new(), following: Vec::new(), roaming: Vec::new() };
        for (n, id) in ids.iter().enumerate() {
            let (here, there) = if n % 2 == 0 { (a, b) } else { (b, a) };
            let path = format!("/api/stream/{id}?n=1000000&rate=50");
            let follow = |nodes: Vec<SocketAddr>, events: usize| {
                let mut client = Client::of(&path);
                tokio::spawn(async move {
                    client.follow(&nodes, events).await;
                    client
                })
            };
            traffic.staying.push(follow(addresses(&[here]), usize::MAX));
            here.until_status(id, "active").await;
            traffic.following.push(follow(addresses(&[there]), usize::MAX));
            traffic.roaming.push(follow(addresses(&[there, here]), 7));
        }
        traffic
    }

    /// Adds a client to each stream, which has seen nothing yet.
    pub fn join(&mut self, node: &Server) {
        for id in &self.ids {
            let (mut client, node) = (Client::of(&format!("/api/stream/{id}?n=1000000&rate=50")), node.address);
            self.following.push(tokio::spawn(async move {
                client.follow(&[node], usize::MAX).await;
                client
            }));
        }
    }

    /// Stops all streams, and judges each client's transcript. Returns the number of gaps.
    pub async fn stop(self, at: &Server) -> usize {
        for id in &self.ids {
            // Repeat the stop if the store did not answer.
            eventually(async || (at.delete(&format!("/api/stream/{id}")).await == StatusCode::ACCEPTED).then_some(()))
                .await;
        }
        let mut gaps = 0;
        for client in self.staying {
            let client = client.await.unwrap();
            client.has_all(client.numbers().len() as u64, "cancelled");
            assert_eq!(client.visits, 1, "nothing that happens to the store cuts a live stream");
        }
        for client in self.following.into_iter().chain(self.roaming) {
            let client = client.await.unwrap();
            client.check();
            assert_eq!((client.restarts(), client.ending()), (0, "cancelled"));
            gaps += client.gaps();
        }
        gaps
    }
}

/// Waits until a number of further events are recorded.
pub async fn records(nodes: &[&Server], more: u64) {
    let from = sum(nodes, "recorded").await;
    eventually(async || (sum(nodes, "recorded").await >= from + more).then_some(())).await;
}

/// Waits until nodes and streams have recovered from the fault.
pub async fn heals(nodes: &[&Server], name: &str) {
    let begun = Instant::now();
    for node in nodes {
        eventually(async || (node.json("/healthz").await.1["breaker"] == "closed").then_some(())).await;
        trusting(node).await;
    }
    let trusted = begun.elapsed();
    records(nodes, 50).await;
    eprintln!("{name}: trusted again after {trusted:?}, recording after {:?}", begun.elapsed());
    let mut fresh = Client::of(&format!("/api/stream/{name}?n=40&rate=200"));
    fresh.follow(&addresses(nodes), 9).await;
    fresh.has_all(40, "completed");
}

/// G1: slots move while streams run. No client loses an event or gets one twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g1_streams_run_while_slots_move() {
    let cluster = RedisCluster::start();
    let [a, b] = [(); 2].map(|()| node(&cluster.url(), &["--stale", "3", "--sweep", "0.5"]));
    let nodes = [&a, &b];
    let traffic = Traffic::start(&a, &b, 6).await;
    records(&nodes, 100).await;
    let shard_of = |slot| (0..3).find(|shard| cluster.master(*shard).port() == cluster.owner_of(slot).port()).unwrap();
    for id in &traffic.ids {
        let slot = cluster.slot_of(&format!("{{{id}}}"));
        let home = shard_of(slot);
        let moving = cluster.begin_move(slot, (home + 1) % 3);
        records(&nodes, 20).await;
        moving.advance_half();
        // A stream's keys now lie on two masters.
        records(&nodes, 20).await;
        moving.finish();
        records(&nodes, 20).await;
        cluster.move_slot(slot, home);
    }
    // Move the indexes too.
    for part in 0..16 {
        let slot = cluster.slot_of(&format!("{{p{part:02}}}"));
        let moving = cluster.begin_move(slot, (shard_of(slot) + 1) % 3);
        moving.advance_half();
        records(&nodes, 5).await;
        moving.finish();
    }
    cluster.wait_ok();
    heals(&nodes, "fresh").await;
    assert_eq!(traffic.stop(&b).await, 0, "no gap");
    eprintln!("store errors: {}", sum(&nodes, "storeErrors").await);
    assert_eq!((sum(&nodes, "lost").await, sum(&nodes, "orphaned").await), (0, 0));
}

/// G5 on a Cluster: a killed node's streams are found, whichever master has their part of the index.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g5_a_killed_nodes_streams_are_found_on_every_master() {
    let cluster = RedisCluster::start();
    let [a, b, c] = [(); 3].map(|()| node(&cluster.url(), &crate::QUICK));
    trusting(&b).await;
    trusting(&c).await;
    let clients: Vec<_> = (0..20)
        .map(|n| {
            let (mut client, a) = (Client::of(&format!("/api/stream/s{n}?n=1000000&rate=20")), a.address);
            tokio::spawn(async move {
                assert_eq!(client.visit(a, 5).await, Visit::Cut);
                client
            })
        })
        .collect();
    let mut cut = Vec::new();
    for client in clients {
        cut.push(client.await.unwrap());
    }
    a.kill();
    for client in &mut cut {
        client.follow(&[c.address], usize::MAX).await;
        client.has_all(client.numbers().len() as u64, "orphaned");
    }
    assert_eq!(sum(&[&b, &c], "orphaned").await, 20);
}

/// G1, G5, G7: masters change while streams run. Live streams are not affected, others have at most a gap, and no
/// stream is taken for an orphan.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g7_streams_run_while_masters_change() {
    let cluster = RedisCluster::with_replicas(&Options::default());
    let [a, b] = [(); 2].map(|()| node(&cluster.url(), &["--stale", "2", "--sweep", "0.5"]));
    let nodes = [&a, &b];
    let traffic = Traffic::start(&a, &b, 6).await;
    records(&nodes, 100).await;
    for shard in 0..3 {
        cluster.failover(shard);
        records(&nodes, 20).await;
    }
    heals(&nodes, "after-failovers").await;
    for shard in [0, 1] {
        cluster.kill_and_wait_promoted(shard);
        heals(&nodes, &format!("after-death-{shard}")).await;
        // The dead master comes back as a replica.
        let dead = [cluster.master(shard), cluster.replica(shard)].into_iter().find(|node| !node.is_running());
        dead.expect("one of them is dead").restart();
        cluster.wait_ok();
    }
    let gaps = traffic.stop(&a).await;
    eprintln!("{gaps} gaps, {} lost, {} store errors", sum(&nodes, "lost").await, sum(&nodes, "storeErrors").await);
    assert_eq!(sum(&nodes, "orphaned").await, 0);
    eventually(async || (figure(&a, "active").await + figure(&b, "active").await == 0).then_some(())).await;
}
