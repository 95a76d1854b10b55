//! A replica takes its master's place: with all data, or with the tail lost.

use crate::support::redis::{Pair, RedisServer, Sentinels};

#[test]
fn a_promoted_replica_has_all() {
    let pair = Pair::start();
    push(&pair.master, 100);
    pair.promote();
    assert_eq!(length(&pair.replica), 100);
    push(&pair.replica, 1);
}

#[test]
fn a_lost_tail_is_lost() {
    let pair = Pair::start();
    push(&pair.master, 3);
    pair.detach_replica();
    push(&pair.master, 4);
    assert_eq!(length(&pair.master), 7);
    pair.promote_with_lost_tail();
    assert_eq!(length(&pair.replica), 3);
    push(&pair.replica, 1);
}

#[test]
fn sentinels_swap_master_and_replica() {
    let all = Sentinels::start();
    let old = all.master();
    push(old, 3);
    let new = all.failover();
    assert_ne!(new.port(), old.port());
    assert_eq!((all.master().port(), all.replica().port()), (new.port(), old.port()));
    assert_eq!(length(new), 3);
    let refused = old.try_command(&["RPUSH", "list", "late"]).unwrap_err();
    assert_eq!(refused.code(), Some("READONLY"));
}

#[test]
fn sentinels_replace_a_dead_master() {
    let all = Sentinels::start();
    let old = all.master();
    all.kill_master();
    let new = all.wait_promoted();
    assert_ne!(new.port(), old.port());
    push(new, 3);
    all.revive_replica();
    assert_eq!(all.master().port(), new.port());
    assert_eq!(length(old), 3);
}

#[test]
fn sentinels_promote_what_lacks_the_tail() {
    let all = Sentinels::start();
    push(all.master(), 3);
    all.detach_replica();
    push(all.master(), 4);
    let new = all.promote_with_lost_tail();
    assert_eq!(length(new), 3);
}

fn push(server: &RedisServer, events: usize) {
    for event in 0..events {
        server.command(&["RPUSH", "list", &event.to_string()]);
    }
}

fn length(server: &RedisServer) -> usize {
    server.ask(&["LLEN", "list"])
}
