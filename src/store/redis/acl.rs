//! The commands that the library uses.

use super::shared::RedisStore;

macro_rules! acl_commands {
    ($($command:literal)*) => {
        impl RedisStore {
            /// The commands that an ACL user for the library must be allowed, and no others: `role` only behind Sentinels,
            /// the last two only in a cluster. With the default prefix, as a line of `redis.conf` or in `ACL SETUSER`:
            ///
            /// ```text
            #[doc = concat!("user sse on >password ~sse:* &sse:* -@all", $(" +", $command),*)]
            /// ```
            ///
            /// From Redis 7.2 on, `+client|setinfo` besides keeps new connections out of the server's ACL log; earlier servers do
            /// not know it.
            pub const ACL_COMMANDS: &[&str] = &[$($command),*];
        }
    };
}

acl_commands! {
    "hello" "select" "ping" "info" "time" "eval" "evalsha" "exists" "set" "unlink" "type" "pexpire" "pexpireat" "pttl"
    "get" "hget" "hmget" "hgetall" "hstrlen" "hset" "hdel" "xadd" "xdel" "xrange" "xrevrange" "xtrim" "zadd" "zrem" "zcard" "zscore" "zrange"
    "zrangebyscore" "zrevrank" "zcount" "zremrangebyrank" "publish" "subscribe" "unsubscribe" "role"
    "cluster|slots" "asking"
}
