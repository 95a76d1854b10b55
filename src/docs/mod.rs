//! Documents for operators.

pub mod managed_redis {
    #![doc = include_str!("managed_redis.md")]
}
