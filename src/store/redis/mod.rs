//! Redis: the same guarantees on any number of nodes. See [`RedisStore`].

mod acl;
mod address;
mod background;
mod beat;
mod builder;
mod clock;
mod cluster;
mod connect;
mod due;
mod error;
mod fleet;
mod followed;
mod indexes;
mod keys;
mod known;
mod leases;
mod life;
mod link;
mod lists;
mod logs;
#[cfg(feature = "redis-cluster")]
mod masters;
mod page;
mod pointers;
mod request;
mod reservation;
mod script;
mod sentinels;
mod settle;
mod shared;
mod single;
mod source;
mod store_impl;
mod stored;
mod tails;
mod value;
mod write;

pub use builder::RedisStoreBuilder;
pub use error::RedisStoreError;
pub use shared::RedisStore;
