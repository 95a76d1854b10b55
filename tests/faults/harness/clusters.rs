//! The Cluster: it forms, a slot moves under readers, a replica takes over.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::support::redis::{Options, RedisCluster, RedisServer};

const KEYS: usize = 50;

#[test]
fn a_slot_moves_while_its_keys_stay_readable() {
    let cluster = RedisCluster::start();
    let slot = cluster.slot_of(&key(0));
    let from = cluster.owner_of(slot);
    for number in 0..KEYS {
        from.command(&["SET", &key(number), &number.to_string()]);
    }
    let (shard, to) = (cluster.shard_of(slot), (cluster.shard_of(slot) + 1) % 3);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_all_readable(&cluster);
            }
        });
        let moving = cluster.begin_move(slot, to);
        moving.advance_half();
        assert_eq!(moving.left(), KEYS / 2);
        assert_all_readable(&cluster);
        moving.finish();
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    cluster.wait_ok();
    assert_eq!(cluster.owner_of(slot).port(), cluster.master(to).port());
    assert_eq!((from.dbsize(), cluster.master(to).dbsize()), (0, KEYS));
    assert_eq!(cluster.keys().len(), KEYS);

    cluster.move_slot(slot, shard);
    assert_eq!(from.dbsize(), KEYS);
}

#[test]
fn a_replica_takes_over_in_order_and_after_a_death() {
    let cluster = RedisCluster::with_replicas(&Options::default());
    let slot = cluster.slot_of(&key(0));
    let shard = cluster.shard_of(slot);
    cluster.master(shard).command(&["SET", &key(0), "0"]);

    assert_eq!(cluster.failover(shard).port(), cluster.replica(shard).port());
    assert_eq!(cluster.owner_of(slot).port(), cluster.replica(shard).port());
    assert_eq!(cluster.shard_of(slot), shard);
    assert_eq!(get(&cluster, &key(0)).as_deref(), Some("0"));

    assert_eq!(cluster.kill_and_wait_promoted(shard).port(), cluster.master(shard).port());
    assert_eq!(get(&cluster, &key(0)).as_deref(), Some("0"));
    cluster.replica(shard).restart();
    cluster.wait_ok();
}

#[test]
fn a_killed_master_comes_back_with_its_log() {
    let cluster = RedisCluster::with(&Options::durable());
    let slot = cluster.slot_of(&key(0));
    let owner = cluster.owner_of(slot);
    owner.command(&["SET", &key(0), "0"]);
    owner.restart();
    cluster.wait_ok();
    assert_eq!(get(&cluster, &key(0)).as_deref(), Some("0"));
    assert_eq!(cluster.url(), format!("redis+cluster://{}", cluster.seeds().join(",")));
}

/// Makes keys that all lie in one slot.
fn key(number: usize) -> String {
    format!("{{slot}}{number}")
}

fn assert_all_readable(cluster: &RedisCluster) {
    for number in 0..KEYS {
        assert_eq!(get(cluster, &key(number)), Some(number.to_string()));
    }
}

/// Reads a key like a client that knows one node and follows redirections.
fn get(cluster: &RedisCluster, key: &str) -> Option<String> {
    let mut asking = false;
    let mut node = cluster.nodes().find(|node| node.is_running()).expect("a node runs");
    loop {
        match get_from(node, key, asking) {
            Ok(value) => return value,
            Err(error) => {
                let (address, _) = error.redirect_node().unwrap_or_else(|| panic!("{error}"));
                node = cluster.nodes().find(|node| node.address().to_string() == address).expect("one of the nodes");
                asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
            }
        }
    }
}

fn get_from(node: &RedisServer, key: &str, asking: bool) -> Result<Option<String>, RedisError> {
    let mut connection = redis::Client::open(node.url())?.get_connection()?;
    if asking {
        redis::cmd("ASKING").exec(&mut connection)?;
    }
    redis::cmd("GET").arg(key).query(&mut connection)
}
