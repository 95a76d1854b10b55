//! Users: who may log in, and the errors for those who may not.

use std::error::Error as _;

use resilient_sse::{RedisStore, store::Store as _};

use crate::{
    redis_store::steps::{begin, held, open, write},
    support::redis::{Options, RedisServer, acl_user},
};

fn server() -> RedisServer {
    RedisServer::with(&Options::default().line(&acl_user("app", "secret", RedisStore::ACL_COMMANDS, "sse:")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_and_a_password_let_in() {
    let server = server();
    let store = RedisStore::connect(&server.url_as("app", "secret")).await.unwrap();
    let (key, epoch) = begin(&store, "chat").await;
    write(&store, &key, epoch, 1, &["a"]).await;
    assert_eq!(held(&store, &key).await, ["r", "a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_not_told() {
    let server = server();
    let error = RedisStore::connect(&server.url_as("app", "wr0ng")).await.unwrap_err();
    let told = format!("{error} {error:?} {:?}", error.source().map(ToString::to_string));
    assert!(!told.contains("wr0ng"), "{told}");
    assert!(error.to_string().starts_with(&format!("Redis at {}: ", server.address())), "{error}");
    assert!(error.to_string().contains("invalid username-password pair"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_another_prefix_is_refused_by_name() {
    let server = server();
    let builder = RedisStore::builder(&server.url_as("app", "secret")).unwrap().key_prefix("other:");
    let error = builder.connect().await.unwrap().open(open("chat")).await.unwrap_err();
    assert_eq!(error.code(), Some("NOPERM"), "{error}");
    assert_eq!(server.dbsize(), 0);
}
