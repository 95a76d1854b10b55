//! The connections of a store: their number, the replacement of closed ones, and that all lead to the same server.

use std::time::{Duration, Instant};

use resilient_sse::{
    NodeId, RedisStore,
    store::{ReadFrom, Store as _, Tail},
};

use crate::{
    redis_store::steps::{
        append, begin, connect, event, held, key, open, open_as, page, send, stand_still, until, wait, woken, write,
    },
    support::redis::{End, Options, Proxy, RedisCluster, RedisServer, Sentinels},
};

/// Lets a runtime of one thread process the events on its connections.
async fn seen() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

/// Returns the connections that are not the test's own, by their last command.
fn clients(server: &RedisServer) -> Vec<String> {
    let list = server.ask::<String>(&["CLIENT", "LIST"]);
    let command = |line: &str| line.split(' ').find_map(|part| part.strip_prefix("cmd=")).map(str::to_owned);
    list.lines().filter_map(command).filter(|command| command != "client|list").collect()
}

fn channels(server: &RedisServer) -> Vec<String> {
    server.ask(&["PUBSUB", "CHANNELS", "*"])
}

/// Publishing is not repeated automatically: it fails on a connection that was already closed.
#[tokio::test]
async fn a_connection_that_was_closed_costs_no_request() {
    let server = RedisServer::with(&Options::default().line("timeout 1"));
    let store = connect(&server.url()).await;
    // The server must leave the listening connection alone.
    let _notices = store.notices(&NodeId::new("node-1"));
    let asked = || server.ask::<String>(&["CLIENT", "LIST", "TYPE", "normal"]).lines().count() - 1;
    let closed = async || until("the server has no client", async || asked() == 0).await;
    for idle in 0..3 {
        closed().await;
        seen().await;
        send(&store, event("chat", &format!("after idling {idle}"))).await;
    }
    for killed in 0..20 {
        server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        seen().await;
        send(&store, event("chat", &format!("after a kill {killed}"))).await;
    }
    server.restart();
    seen().await;
    send(&store, event("chat", "after a restart")).await;
    assert_eq!(held(&store, &key("chat")).await, ["r", "after a restart"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_reads_have_a_connection_of_their_own() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = begin(&store, "chat").await;
    let mut seq = 0;
    let mut asked = async || {
        seq += 1;
        // A write that is on its way when its connection closes must fail, since nobody knows whether it was executed.
        until("it is written", async || store.append(vec![append(&key, epoch, seq, &["x"])]).await.is_ok()).await;
        assert_eq!(page(&store, &key, ReadFrom::Start).await.records.len() as u64, 1 + seq);
        clients(&server)
    };
    assert_eq!(clients(&server).len(), 2, "one to ask, one to listen: the third is made when it is needed");
    until("reads have a connection of their own", async || asked_apart(&asked().await)).await;
    for _ in 0..20 {
        let asked = asked().await;
        assert!(asked_apart(&asked), "{asked:?}");
    }
    // This connection is replaced like the other, and no read is lost.
    for _ in 0..5 {
        server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        asked().await;
        until("it is replaced", async || asked_apart(&asked().await)).await;
    }
}

/// Returns whether one connection has just written, and another one read.
fn asked_apart(clients: &[String]) -> bool {
    let count = |command: &str| clients.iter().filter(|client| *client == command).count();
    clients.len() == 3 && count("xadd") == 1 && count("xrange") == 1
}

/// A node is told once that the store was away, however many connections it had.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_for_reads_that_is_replaced_is_no_news_to_a_node() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let mut notices = store.notices(&NodeId::new("node-1"));
    let (key, epoch) = begin(&store, "chat").await;
    let mut seq = 0;
    let mut reading = async || {
        seq += 1;
        write(&store, &key, epoch, seq, &["x"]).await;
        held(&store, &key).await;
        let list = server.ask::<String>(&["CLIENT", "LIST"]);
        let line = list.lines().find(|line| line.contains("cmd=xrange") && list.contains("cmd=xadd"))?;
        Some(line.split(' ').find_map(|part| part.strip_prefix("id="))?.to_owned())
    };
    for _ in 0..5 {
        let mut id = None;
        until("reads have a connection of their own", async || {
            id = reading().await;
            id.is_some()
        })
        .await;
        assert_eq!(server.ask::<usize>(&["CLIENT", "KILL", "ID", &id.unwrap()]), 1);
        // No read is lost with the connection.
        reading().await;
    }
    let posted = std::future::poll_fn(|cx| std::task::Poll::Ready(notices.poll(cx))).await;
    assert!(posted.is_pending(), "{posted:?}");
}

/// A server that closes all connections at once fails no request that only reads, also where the process has not noticed yet.
#[tokio::test(flavor = "multi_thread")]
async fn no_read_is_lost_when_all_connections_are_closed() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = begin(&store, "chat").await;
    write(&store, &key, epoch, 1, &["x"]).await;
    let kill = async || {
        until("both connections stand", async || {
            held(&store, &key).await;
            store.active_count().await.unwrap();
            let clients = clients(&server);
            ["xrange", "zcard"].iter().all(|command| clients.iter().any(|client| client == command))
        })
        .await;
        server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    };
    for _ in 0..50 {
        kill().await;
        assert!(store.info(key.clone()).await.unwrap().is_some());
        kill().await;
        assert_eq!(held(&store, &key).await, ["r", "x"]);
        kill().await;
        assert_eq!(store.pointer(key.clone()).await.unwrap(), None);
        kill().await;
        assert_eq!(store.active_count().await.unwrap(), 1);
    }
}

/// Two servers behind one address, which at some point switches to the second. The first lives on, as a replica that
/// has lost its primary.
struct Moving {
    old: RedisServer,
    new: RedisServer,
    proxy: Proxy,
}

impl Moving {
    fn start() -> Self {
        let (old, new) = (RedisServer::start(), RedisServer::start());
        let proxy = Proxy::start(old.address());
        Self { old, new, proxy }
    }

    fn go(&self) {
        self.proxy.point_at(self.new.address());
        self.old.command(&["REPLICAOF", "127.0.0.1", "1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_comes_from_the_server_that_is_written() {
    let moving = Moving::start();
    let store = connect(&moving.proxy.url()).await;
    send(&store, event("chat", "old")).await;
    until("reads have a connection of their own", async || {
        held(&store, &key("chat")).await;
        clients(&moving.old).len() == 3
    })
    .await;
    moving.go();
    until("the new server is written", async || store.publish(event("other", "new")).await.is_ok()).await;
    assert!(
        crate::redis_store::steps::read(&store, &key("chat"), ReadFrom::Start).await.is_none(),
        "read from the old server"
    );
    until("nobody is at the old server", async || clients(&moving.old).is_empty()).await;
    assert_eq!(held(&store, &key("other")).await, ["r", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listening_connection_follows_its_address() {
    let moving = Moving::start();
    let store = connect(&moving.proxy.url()).await;
    let _notices = store.notices(&NodeId::new("node-1"));
    let mut tail = store.tail(&key("chat"));
    wait(&mut tail).await;
    until("it listens", async || channels(&moving.old).len() == 2).await;
    moving.go();
    until("the new server is written", async || store.publish(event("other", "x")).await.is_ok()).await;
    until("it listens at the new server", async || channels(&moving.new).len() == 2).await;
    until("nobody listens at the old one", async || channels(&moving.old).is_empty()).await;
    until("nobody is at the old one", async || clients(&moving.old).is_empty()).await;
}

#[cfg(feature = "redis-cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_it_listens_at_a_master() {
    let cluster = RedisCluster::with_replicas(&Options::default());
    let store = connect(&cluster.url()).await;
    let _notices = store.notices(&NodeId::new("node-1"));
    let is_heard_at = |server: &RedisServer| channels(server).len() == 1;
    until("it listens", async || cluster.nodes().any(is_heard_at)).await;
    let shard = (0..3).find(|shard| is_heard_at(cluster.master(*shard))).expect("at a master");
    // The old master lives on as a replica.
    let old = cluster.master(shard).address();
    cluster.failover(shard);
    let is_replica = |server: &RedisServer| server.info("role").is_some_and(|role| role == "slave");
    until("the old master is a replica", async || {
        cluster.nodes().find(|node| node.address() == old).is_some_and(is_replica)
    })
    .await;
    let mut number = 0;
    until("it listens at a master", async || {
        number += 1;
        let _ = store.publish(event(&format!("s{number}"), "x")).await;
        cluster.nodes().filter(|node| !is_replica(node)).any(is_heard_at)
    })
    .await;
}

/// Waits until the tail's stream has an event.
async fn first_event(store: &RedisStore, tail: &mut Tail) {
    loop {
        std::future::poll_fn(|cx| tail.poll_changed(cx)).await;
        let page = crate::redis_store::steps::read(store, &key("chat"), ReadFrom::Start).await;
        if page.is_some_and(|page| page.records.len() > 1) {
            return;
        }
    }
}

/// A node that begins to produce learns of its followers only after they have been told of the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_of_a_stream_that_was_waited_for_comes_within_a_few_round_trips() {
    let each_way = Duration::from_millis(40);
    for _ in 0..4 {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.address());
        proxy.delay(each_way);
        let (one, two) = (connect(&proxy.url()).await, connect(&proxy.url()).await);
        let _notices = (one.notices(&NodeId::new("node-1")), two.notices(&NodeId::new("node-2")));
        let mut tail = two.tail(&key("chat"));
        wait(&mut tail).await;
        until("all listen", async || channels(&server).len() == 3).await;
        wait(&mut tail).await;
        let waiting = tokio::spawn(async move {
            first_event(&two, &mut tail).await;
            Instant::now()
        });
        let (key, epoch) = begin(&one, "chat").await;
        let made = Instant::now();
        write(&one, &key, epoch, 1, &["x"]).await;
        let took = waiting.await.unwrap() - made;
        // Three round trips, and the machine's delay. The net would take a second.
        assert!(took < 10 * each_way, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_has_moved_is_told_at_once_that_it_is_followed() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let _notices = (one.notices(&NodeId::new("node-1")), two.notices(&NodeId::new("node-2")));
    let mut tail = one.tail(&key("chat"));
    wait(&mut tail).await;
    until("all listen", async || channels(&server).len() == 3).await;
    for run in 0..3 {
        let (key, epoch) = begin(&one, "chat").await;
        write(&one, &key, epoch, 1, &["x"]).await;
        wait(&mut tail).await;
        stand_still(&one, &key, epoch).await;
        wait(&mut tail).await;
        let there = resilient_sse::store::Open { node: NodeId::new("node-2"), ..open("chat") };
        let epoch = open_as(&two, there).await;
        let told = Instant::now();
        while !two.is_followed(&key) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(told.elapsed() < Duration::from_millis(500), "run {run}");
        }
        stand_still(&two, &key, epoch).await;
        // The follower goes, and comes back at once.
        tail = one.tail(&key);
        wait(&mut tail).await;
    }
}

/// The same where every message is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_has_moved_is_found_by_the_net() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let mut notices = store.notices(&NodeId::new("node-1"));
    let (key, mut epoch) = begin(&store, "chat").await;
    let mut tail = store.tail(&key);
    wait(&mut tail).await;
    until("all is listened to", async || channels(&server).len() == 2).await;
    for _ in 0..3 {
        write(&store, &key, epoch, 1, &["x"]).await;
        wait(&mut tail).await;
        // This process produces the stream for a while, and the net has noticed that.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        stand_still(&store, &key, epoch).await;
        // All earlier messages have arrived, too.
        server.command(&["PUBLISH", "sse:node:node-1", "look YWRh/last"]);
        std::future::poll_fn(|cx| notices.poll(cx)).await;
        wait(&mut tail).await;
        epoch += 1000;
        let (state, id) = ("sse:stream:{YWRh/chat}", format!("{epoch}-1"));
        server.command(&["HSET", state, "state", "active", "epoch", &epoch.to_string(), "node", "node-2"]);
        server.command(&["XADD", "sse:events:{YWRh/chat}", &id, "t", "0", "n", "2", "b", "8", "e", "\u{2}data: x\n\n"]);
        woken(&mut tail, "an event of a producer that was not told of").await;
        stand_still(&store, &key, epoch).await;
        epoch = open_as(&store, open("chat")).await;
    }
}

/// The net's request once a second must not count like a request that somebody waits for.
#[tokio::test(flavor = "multi_thread")]
async fn the_net_asks_for_ids_and_not_for_entries() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let (one, two) = (connect(&server.url()).await, connect(&proxy.url()).await);
    let (key, epoch) = begin(&one, "chat").await;
    let large = "x".repeat(100_000);
    write(&one, &key, epoch, 1, &[&large]).await;
    let mut tail = two.tail(&key);
    for seq in 2..=4 {
        wait(&mut tail).await;
        until("it listens", async || !channels(&server).is_empty()).await;
        wait(&mut tail).await;
        let before = proxy.reply_bytes();
        let (id, event) = (format!("{epoch}-{seq}"), format!("\u{2}data: {large}\n\n"));
        server.command(&["XADD", "sse:events:{YWRh/chat}", &id, "t", "0", "n", "2", "b", "8", "e", &event]);
        woken(&mut tail, "an event that was not told").await;
        let took = proxy.reply_bytes() - before;
        assert!(took < 50_000, "{took} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_work_are_refused_with_a_sentence() {
    let refused = async |url: &str, why: &str| {
        let error = RedisStore::connect(url).await.expect_err(url).to_string();
        assert!(error.starts_with("the server at 127.0.0.1:") && error.contains(why), "{error}");
    };
    let pair = crate::support::redis::Pair::start();
    refused(&pair.replica.url(), "a replica, which takes no writes").await;
    connect(&pair.master.url()).await;
    #[cfg(feature = "redis-cluster")]
    {
        let cluster = RedisCluster::start();
        for node in cluster.nodes() {
            refused(&node.url(), "a node of a cluster: its URL begins with redis+cluster://").await;
        }
        let alone = pair.master.url().replace("redis://", "redis+cluster://");
        refused(&alone, "no node of a cluster: its URL begins with redis://").await;
    }
    let sentinels = Sentinels::start();
    refused(&sentinels.sentinel(0).url(), "a Sentinel: its URL is redis+sentinel://").await;
}

/// A runtime that shuts down drops new tasks at once: a request for a connection must not restart the attempt for ever.
#[test]
fn a_runtime_goes_down_while_a_connection_is_made() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (down, is_down) = std::sync::mpsc::channel();
    runtime.block_on(async {
        let store = connect(&proxy.url()).await;
        proxy.freeze(true);
        proxy.cut(End::Reset);
        until("the connection is known to be lost", async || {
            tokio::time::timeout(Duration::from_millis(20), store.info(key("a"))).await.is_err()
        })
        .await;
        let (asks, is_asking) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let _ = asks.send(());
            // This runs on the worker while the other thread shuts the runtime down.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(500) {
                let mut info = Box::pin(store.info(key("a")));
                std::future::poll_fn(|cx| std::task::Poll::Ready(info.as_mut().poll(cx).is_ready())).await;
            }
        });
        is_asking.await.unwrap();
    });
    std::thread::spawn(move || {
        drop(runtime);
        let _ = down.send(());
    });
    assert!(is_down.recv_timeout(Duration::from_secs(10)).is_ok(), "the runtime still runs");
}
