//! The particulars of Redis: keys, users, damage, unsuitable servers, several nodes on one store.

mod beats;
mod clients;
#[cfg(feature = "redis-cluster")]
mod cluster;
mod conformance;
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
pub mod steps;
mod strangers;
mod tails;
mod ttls;
mod users;
