//! `RedisStore` on one server, in a Cluster and behind Sentinels, always as a user with only the documented rights.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::atomic::{AtomicU32, Ordering},
    task::Poll,
};

use resilient_sse::{
    Owner, RedisStore, StreamId, StreamKey,
    store::{Store as _, conformance},
};

use crate::support::redis::{Options, RedisServer, Sentinels, acl_user, eventually};

fn user() -> String {
    acl_user("app", "secret", RedisStore::ACL_COMMANDS, "sse:")
}

/// Returns the address with the user in it.
fn as_user(url: &str) -> String {
    url.replacen("://", "://app:secret@", 1)
}

async fn connect(url: &str, prefix: String) -> RedisStore {
    RedisStore::builder(&as_user(url)).unwrap().key_prefix(prefix).connect().await.unwrap()
}

/// Runs all checks on running servers, each under a prefix of its own, which makes an empty store.
async fn all_checks(url: &str) {
    let number = AtomicU32::new(0);
    let next = || connect(url, format!("sse:{}:", number.fetch_add(1, Ordering::Relaxed)));
    conformance::run(next).await;
}

/// Runs each check by itself, on a server of its own.
mod one_server {
    use super::{Options, RedisServer, conformance, connect, user};

    macro_rules! checks {
        (; $($area:ident::$check:ident,)*) => {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                let server = RedisServer::with(&Options::default().line(&user()));
                conformance::$area::$check(connect(&server.url(), "sse:".to_owned()).await).await;
            })*
        };
    }

    resilient_sse::__store_checks!(checks,);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_is_asked_what_the_user_may() {
    let server = RedisServer::with(&Options::default().line(&user()));
    forget_commands(&server);
    all_checks(&server.url()).await;
    connect(&format!("{}/1", server.url()), "sse:".to_owned()).await;
    stop_listening(&server.url(), || run_by(&server)).await;
    assert_eq!(server.denied(), [""; 0]);
    assert_allowed(&run_by(&server), &["role", "cluster|slots", "asking"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_sentinels() {
    let servers = Sentinels::with(&Options::default().line(&user()));
    all_checks(&servers.url()).await;
    assert_eq!(servers.master().denied(), [""; 0]);
}

#[cfg(feature = "redis-cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster() {
    let cluster = crate::support::redis::RedisCluster::with(&Options::default().line(&user()));
    cluster.nodes().for_each(forget_commands);
    all_checks(&cluster.url()).await;
    let executed = || cluster.nodes().flat_map(run_by).collect();
    stop_listening(&cluster.url(), executed).await;
    let executed: BTreeSet<_> = executed();
    let executed = &executed | &asking(&cluster).await;
    for node in cluster.nodes() {
        assert_eq!(node.denied(), [""; 0]);
    }
    assert_allowed(&executed, &["select", "role"]);
}

/// Waits for a stream, drops the tail, and waits until the stream's channel is no longer listened to.
async fn stop_listening(url: &str, executed: impl Fn() -> BTreeSet<String>) {
    let store = connect(url, "sse:".to_owned()).await;
    let mut tail = store.tail(&StreamKey::new(Owner::ANONYMOUS, StreamId::new("left").unwrap()));
    // A process that has just begun to listen announces that to all nodes.
    while poll_fn(|cx| Poll::Ready(tail.poll_changed(cx))).await.is_ready() {}
    drop(tail);
    eventually("it is unsubscribed from", || executed().contains("unsubscribe").then_some(()));
}

/// Asks for a stream whose slot moves. Returns the commands that the slot's new node received.
#[cfg(feature = "redis-cluster")]
async fn asking(cluster: &crate::support::redis::RedisCluster) -> BTreeSet<String> {
    let store = connect(&cluster.url(), "sse:".to_owned()).await;
    let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("moves").unwrap());
    let slot = cluster.slot_of("sse:stream:{moves}");
    let to = (0..3).find(|shard| cluster.master(*shard).port() != cluster.owner_of(slot).port()).unwrap();
    let moves = cluster.begin_move(slot, to);
    forget_commands(cluster.master(to));
    assert_eq!(store.info(key).await.unwrap(), None);
    let executed = run_by(cluster.master(to));
    assert!(executed.contains("asking"), "{executed:?}");
    moves.finish();
    cluster.wait_ok();
    executed
}

fn forget_commands(server: &RedisServer) {
    server.command(&["CONFIG", "RESETSTAT"]);
}

/// Returns the commands that ran since then, also within scripts, without those of the test itself.
fn run_by(server: &RedisServer) -> BTreeSet<String> {
    let told: String = server.ask(&["INFO", "commandstats"]);
    let names = told.lines().filter_map(|line| {
        let (name, counts) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        (!counts.starts_with("calls=0,")).then(|| name.to_owned())
    });
    names
        .filter(|name| !["acl|log", "config|resetstat", "cluster|setslot", "cluster|myid"].contains(&&**name))
        .collect()
}

/// Asserts that the commands that ran are those of the list, except those that this kind of servers does not get.
fn assert_allowed(executed: &BTreeSet<String>, without: &[&str]) {
    let listed = RedisStore::ACL_COMMANDS.iter().filter(|command| !without.contains(command));
    let listed: BTreeSet<String> = listed.map(|command| (*command).to_owned()).collect();
    let unlisted: Vec<_> = executed.difference(&listed).collect();
    let unused: Vec<_> = listed.difference(executed).collect();
    assert!(unlisted.is_empty() && unused.is_empty(), "not listed: {unlisted:?}, not needed: {unused:?}");
}
