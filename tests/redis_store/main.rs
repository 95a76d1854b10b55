//! What is particular to Redis: keys, users, damage, servers that are none, several nodes on one store.
#![cfg(feature = "redis")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../redis_servers/mod.rs"]
mod redis_servers;

mod beats;
mod clients;
#[cfg(feature = "redis-cluster")]
mod cluster;
mod connections;
mod cuts;
mod damage;
mod entries;
mod epochs;
mod fences;
mod fixtures;
mod growth;
mod indexes;
mod layers;
mod leases;
mod limits;
mod lives;
mod names;
mod order;
mod pages;
mod pointers;
mod sentinels;
mod strangers;
mod support;
mod tails;
mod ttls;
mod users;
