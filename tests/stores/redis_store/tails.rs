//! Two stores on one server are two nodes: a change on one wakes the followers on the other.

use std::{
    future::poll_fn,
    time::{Duration, Instant},
};

use resilient_sse::{
    NodeId,
    store::{Open, Store as _},
};

use crate::{
    redis_store::steps::{
        begin, close, connect, event, finish, key, last, open, open_as, send, stand_still, until, wait, woken, write,
    },
    support::redis::{RedisCluster, RedisServer, Sentinels},
};

/// The channel on which followers of the tests' usual stream listen.
const CHANNEL: &str = "sse:tail:YWRh/chat";

#[tokio::test(flavor = "multi_thread")]
async fn each_change_on_one_node_wakes_the_other() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let _notices = one.notices(&NodeId::new("node-1"));
    let mut tail = two.tail(&crate::redis_store::steps::key("chat"));
    wait(&mut tail).await;
    let request = open("chat");
    let (key, token) = (request.key.clone(), request.token);
    open_as(&one, request).await;
    woken(&mut tail, "an opening").await;
    wait(&mut tail).await;
    one.withdraw(key.clone(), token).await.unwrap();
    woken(&mut tail, "a withdrawal").await;
    let (_, epoch) = begin(&one, "chat").await;
    for seq in 1..=3 {
        wait(&mut tail).await;
        write(&one, &key, epoch, seq, &["x"]).await;
        woken(&mut tail, "an append").await;
    }
    wait(&mut tail).await;
    stand_still(&one, &key, epoch).await;
    woken(&mut tail, "an interruption").await;
    let (_, epoch) = begin(&one, "chat").await;
    wait(&mut tail).await;
    finish(&one, close(&key, epoch)).await;
    woken(&mut tail, "an end").await;
    wait(&mut tail).await;
    one.delete(key.clone()).await.unwrap();
    woken(&mut tail, "a deletion").await;
    wait(&mut tail).await;
    send(&one, event("chat", "x")).await;
    woken(&mut tail, "a first publication").await;
    wait(&mut tail).await;
    send(&one, event("chat", "x")).await;
    woken(&mut tail, "a publication").await;
    wait(&mut tail).await;
    one.publish(last("chat", "end")).await.unwrap();
    woken(&mut tail, "a published end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_says_is_noticed_all_the_same() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let (key, epoch) = begin(&one, "chat").await;
    write(&one, &key, epoch, 1, &["x"]).await;
    let mut tail = two.tail(&key);
    for seq in 2..=4 {
        // The first wake-up may be that of the beginning, since earlier messages were not received.
        wait(&mut tail).await;
        until("it listens", async || channels(&server) == [CHANNEL]).await;
        wait(&mut tail).await;
        let id = format!("{epoch}-{seq}");
        server.command(&[
            "XADD",
            "sse:events:{YWRh/chat}",
            &id,
            "t",
            "0",
            "n",
            &seq.to_string(),
            "b",
            "8",
            "e",
            "\u{1}data: x\n",
        ]);
        woken(&mut tail, "an event that was not told").await;
    }
    wait(&mut tail).await;
    server.command(&["HSET", "sse:stream:{YWRh/chat}", "state", "interrupted"]);
    woken(&mut tail, "a state that was not told").await;
    wait(&mut tail).await;
    server.command(&["DEL", "sse:stream:{YWRh/chat}", "sse:events:{YWRh/chat}"]);
    woken(&mut tail, "a loss that was not told").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listening_connection_that_breaks_is_replaced() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let (key, epoch) = begin(&one, "chat").await;
    let mut tail = two.tail(&key);
    for seq in 1..=4 {
        wait(&mut tail).await;
        until("it listens", async || channels(&server) == [CHANNEL]).await;
        wait(&mut tail).await;
        let killed: usize = server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(killed > 0);
        write(&one, &key, epoch, seq, &["x"]).await;
        woken(&mut tail, "an event while nobody listened").await;
    }
}

fn channels(server: &RedisServer) -> Vec<String> {
    server.ask(&["PUBSUB", "CHANNELS", "*"])
}

fn listeners(server: &RedisServer) -> usize {
    server.ask::<String>(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines().filter(|line| !line.is_empty()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_listens_on_one_connection_and_only_while_it_must() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let before: usize = server.info("connected_clients").unwrap().parse().unwrap();
    let mut tails = Vec::new();
    for number in 0..300 {
        let key = crate::redis_store::steps::key(&format!("s{number}"));
        tails.extend([one.tail(&key), one.tail(&key), two.tail(&key)]);
    }
    for tail in &mut tails {
        wait(tail).await;
    }
    until("all is listened to", async || channels(&server).len() == 300).await;
    assert_eq!(listeners(&server), 2, "one a process");
    let after: usize = server.info("connected_clients").unwrap().parse().unwrap();
    assert!(after <= before.max(5), "{before} connections, then {after}");
    drop(tails.split_off(3));
    until("what nobody waits for is dropped", async || channels(&server) == ["sse:tail:YWRh/s0"]).await;
    drop(tails);
    until("all is dropped", async || channels(&server).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_comes_back_is_listened_to_again() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let (key, epoch) = begin(&one, "chat").await;
    for seq in 1..=3 {
        let mut tail = two.tail(&key);
        wait(&mut tail).await;
        until("it listens", async || channels(&server) == [CHANNEL]).await;
        wait(&mut tail).await;
        write(&one, &key, epoch, seq, &["x"]).await;
        woken(&mut tail, "an append").await;
        drop(tail);
        if seq == 2 {
            until("it does not listen", async || channels(&server).is_empty()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_producing_node_knows_whether_another_follows() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let _notices = one.notices(&NodeId::new("node-1"));
    let _others = two.notices(&NodeId::new("node-2"));
    let (key, epoch) = begin(&one, "chat").await;
    let other = open_as(&one, Open { node: NodeId::new("node-1"), ..open("other") }).await;
    let mut local = one.tail(&crate::redis_store::steps::key("other"));
    wait(&mut local).await;
    assert!(!one.is_followed(&key));
    let mut tail = two.tail(&key);
    wait(&mut tail).await;
    let waits = tokio::spawn(async move {
        loop {
            poll_fn(|cx| tail.poll_changed(cx)).await;
        }
    });
    until("the producing node knows", async || one.is_followed(&key)).await;
    write(&one, &key, epoch, 1, &["x"]).await;
    write(&one, &crate::redis_store::steps::key("other"), other, 1, &["x"]).await;
    assert!(!two.is_followed(&key), "the following node does not produce it");
    assert!(!one.is_followed(&crate::redis_store::steps::key("other")), "a follower of its own does not count");
    waits.abort();
    assert!(waits.await.unwrap_err().is_cancelled());
    until("it knows that nobody follows any more", async || !one.is_followed(&key)).await;
}

/// A reader announces itself before it reads, and counts without further waiting.
#[tokio::test(flavor = "multi_thread")]
async fn g8_a_follower_that_has_announced_itself_is_known_for_as_long_as_it_holds_a_tail() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let _notices = one.notices(&NodeId::new("node-1"));
    let (key, epoch) = begin(&one, "chat").await;
    write(&one, &key, epoch, 1, &["x"]).await;
    until("the producing node listens", async || channels(&server) == ["sse:node:node-1"]).await;
    assert!(!one.is_followed(&key));
    two.announce(key.clone()).await.unwrap();
    // Act like a follower: take the tail once the producing node knows.
    let tail = two.tail(&key);
    within(Duration::from_millis(200), async || one.is_followed(&key)).await;
    // This follower never waits: a client that reads slowly is busy with a page all the time.
    let held = Instant::now();
    while held.elapsed() < Duration::from_millis(10_500) {
        assert!(one.is_followed(&key), "forgotten after {:?}", held.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let other = two.tail(&key);
    drop(tail);
    for _ in 0..120 {
        assert!(one.is_followed(&key), "another one is left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(other);
    within(Duration::from_secs(3), async || !one.is_followed(&key)).await;
}

/// Waits until it is so, and no longer.
async fn within(limit: Duration, is_so: impl AsyncFn() -> bool) {
    let so = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(limit, so).await.is_ok(), "not within {limit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_a_stream_that_nobody_or_the_own_process_produces() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let _notices = one.notices(&NodeId::new("node-1"));
    until("the node listens", async || channels(&server) == ["sse:node:node-1"]).await;
    two.announce(key("unknown")).await.unwrap();
    let (own, _) = begin(&one, "own").await;
    let _tail = one.tail(&own);
    one.announce(own.clone()).await.unwrap();
    let (ended, epoch) = begin(&one, "ended").await;
    finish(&one, close(&ended, epoch)).await;
    two.announce(ended.clone()).await.unwrap();
    send(&one, event("sent", "x")).await;
    two.announce(key("sent")).await.unwrap();
    // A message that arrives must have come after all these.
    let (last, _) = begin(&one, "last").await;
    two.announce(last.clone()).await.unwrap();
    within(Duration::from_secs(2), async || one.is_followed(&last)).await;
    for key in [key("unknown"), own, ended, key("sent")] {
        assert!(!one.is_followed(&key), "{key:?}");
    }
}

/// The same in a Cluster and behind Sentinels: the node is told wherever the stream lies.
#[tokio::test(flavor = "multi_thread")]
async fn followers_announce_themselves_in_any_topology() {
    let (cluster, sentinels) = (RedisCluster::start(), Sentinels::start());
    for url in [cluster.url(), sentinels.url()] {
        let (one, two) = (connect(&url).await, connect(&url).await);
        let _notices = one.notices(&NodeId::new("node-1"));
        let (first, _) = begin(&one, "first").await;
        let announced = async |key: &resilient_sse::StreamKey| {
            two.announce(key.clone()).await.unwrap();
            one.is_followed(key)
        };
        until("the producing node listens", async || announced(&first).await).await;
        for number in 0..4 {
            let (key, _) = begin(&one, &format!("s{number}")).await;
            let tail = two.tail(&key);
            two.announce(key.clone()).await.unwrap();
            within(Duration::from_secs(1), async || one.is_followed(&key)).await;
            drop(tail);
            within(Duration::from_secs(3), async || !one.is_followed(&key)).await;
        }
    }
}

/// The master of a quiet stream hangs for longer than a follower may be silent: followers announce themselves by way of
/// the other masters.
#[cfg(feature = "redis-cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn g8_a_follower_is_known_while_the_master_of_its_stream_hangs() {
    let cluster = RedisCluster::start();
    let (one, two) = (connect(&cluster.url()).await, connect(&cluster.url()).await);
    let _notices = one.notices(&NodeId::new("node-1"));
    // Neither process listens at this master: only the stream's part hangs.
    let clients = |shard: usize| cluster.master(shard).ask::<String>(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    let shard = (0..3).find(|shard| clients(*shard).trim().is_empty()).expect("two listen at two of three");
    let mut ids = (0..).map(|number| format!("s{number}"));
    let id = ids.find(|id| cluster.shard_of(cluster.slot_of(&format!("sse:stream:{{YWRh/{id}}}"))) == shard).unwrap();
    let (key, _) = begin(&one, &id).await;
    let _tail = two.tail(&key);
    two.announce(key.clone()).await.unwrap();
    until("the producing node knows", async || one.is_followed(&key)).await;
    cluster.master(shard).stop();
    let hung = Instant::now();
    while hung.elapsed() < Duration::from_secs(14) {
        assert!(one.is_followed(&key), "forgotten after {:?}", hung.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.master(shard).cont();
    cluster.wait_ok();
}
