//! Sentinels with a login of their own, apart from that of the servers that they watch.

use std::error::Error as _;

use redis::{
    ConnectionAddr,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use resilient_sse::{RedisStore, RedisStoreError, store::Store as _};

use crate::{
    redis_store::steps::{begin, held, key, until, write},
    support::redis::{Options, Sentinels, acl_user},
};

/// Begins a stream, and reads what was written to it.
async fn works(store: &RedisStore, id: &str) {
    let (key, epoch) = begin(store, id).await;
    write(store, &key, epoch, 1, &["a"]).await;
    assert_eq!(held(store, &key).await, ["r", "a"]);
}

async fn refused(url: &str) -> RedisStoreError {
    let error = RedisStore::connect(url).await.unwrap_err();
    let told = format!("{error} {error:?} {:?}", error.source().map(ToString::to_string));
    assert!(!told.contains("hunter2") && !told.contains("s-pass") && !told.contains("p-pass"), "{told}");
    error
}

/// Servers and Sentinels with different passwords.
fn guarded() -> Sentinels {
    Sentinels::with_each(&Options::default().password("p-pass"), &Options::default().password("s-pass"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_servers_have_passwords_of_their_own() {
    let servers = guarded();
    let url = servers.url().replacen("://", "://:p-pass@", 1) + "?sentinel_password=s-pass";
    let store = RedisStore::connect(&url).await.unwrap();
    works(&store, "before").await;
    // The new primary that the Sentinels name needs a login again.
    servers.failover();
    until("the new primary is found", async || store.info(key("before")).await.is_ok()).await;
    works(&store, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_told_to_be_the_sentinels_or_the_primarys() {
    let servers = guarded();
    let url = |login: &str, query: &str| servers.url().replacen("://", &format!("://{login}@"), 1) + query;
    for query in ["", "?sentinel_password=hunter2", "?sentinel_username=ada&sentinel_password=s-pass"] {
        let error = refused(&url(":p-pass", query)).await.to_string();
        assert!(error.starts_with("the Sentinels of `mymaster` refused the login: "), "{query}: {error}");
    }
    for login in ["", ":hunter2", "ada:p-pass"] {
        let error = refused(&url(login, "?sentinel_password=s-pass")).await.to_string();
        assert!(error.starts_with("Redis at mymaster: "), "{login}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_only_one_side_wants_is_given_to_that_side() {
    let open = Options::default();
    let servers = Sentinels::with_each(&open, &open.clone().password("s-pass"));
    works(&RedisStore::connect(&(servers.url() + "?sentinel_password=s-pass")).await.unwrap(), "chat").await;
    let servers = Sentinels::with_each(&open.clone().password("p-pass"), &open);
    works(&RedisStore::connect(&servers.url().replacen("://", "://:p-pass@", 1)).await.unwrap(), "chat").await;
}

/// A Sentinel's user with only the commands that the library sends to Sentinels.
const WATCH: &str = "user watch on >s/p@s:s? -@all +role +sentinel|masters";

#[tokio::test(flavor = "multi_thread")]
async fn users_of_either_side_need_only_what_is_documented() {
    let servers = Options::default().line(&acl_user("app", "secret", RedisStore::ACL_COMMANDS, "sse:"));
    let servers = Sentinels::with_each(&servers, &Options::default().line(WATCH));
    let query = "?sentinel_username=watch&sentinel_password=s%2Fp%40s%3As%3F";
    let store = RedisStore::connect(&(servers.url().replacen("://", "://app:secret@", 1) + query)).await.unwrap();
    works(&store, "chat").await;
    for sentinel in 0..3 {
        assert_eq!(servers.sentinel(sentinel).denied(), [""; 0]);
    }
    assert_eq!(servers.master().denied(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whom_the_sentinels_tell_nothing_is_refused_by_them() {
    let user = "user watch on >s-pass -@all +role";
    let servers = Sentinels::with_each(&Options::default(), &Options::default().line(user));
    let error = refused(&(servers.url() + "?sentinel_username=watch&sentinel_password=s-pass")).await;
    assert!(error.to_string().starts_with("the Sentinels of `mymaster` refused the login: "), "{error}");
    assert!(error.to_string().contains("sentinel|masters"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_hosts_own_has_both_logins() {
    let servers = guarded();
    let client = |password: &str| {
        let address = |number| ConnectionAddr::Tcp("127.0.0.1".to_owned(), servers.sentinel(number).port());
        SentinelClientBuilder::new((0..3).map(address), "mymaster", SentinelServerType::Master)
            .unwrap()
            .set_client_to_redis_password("p-pass")
            .set_client_to_sentinel_password(password)
            .build()
            .unwrap()
    };
    works(&RedisStore::from_sentinel_client(client("s-pass"), "mymaster").connect().await.unwrap(), "chat").await;
    let error = RedisStore::from_sentinel_client(client("hunter2"), "chats").connect().await.unwrap_err();
    assert!(error.to_string().starts_with("the Sentinels of `chats` refused the login: "), "{error}");
}
