#![doc = include_str!("clients.md")]

/// Managed services of Redis and Valkey.
pub mod managed_redis {
    #![doc = include_str!("managed_redis.md")]
}
