//! Another node has taken over a producer's stream, and the producer still writes by plain `XADD` from its remembered
//! position: only the log itself can refuse that.

use resilient_sse::store::{Appended, Fence};

use crate::{
    redis_store::steps::{append, begin, close, connect, finish, held, put, stand_still, write},
    support::redis::RedisServer,
};

#[tokio::test(flavor = "multi_thread")]
async fn g4_an_interruption_elsewhere_fences() {
    let server = RedisServer::start();
    let (zombie, guardian) = (connect(&server.url()).await, connect(&server.url()).await);
    let (key, epoch) = begin(&zombie, "chat").await;
    write(&zombie, &key, epoch, 1, &["1"]).await;
    write(&zombie, &key, epoch, 2, &["2"]).await;
    stand_still(&guardian, &key, epoch).await;
    assert_eq!(put(&zombie, append(&key, epoch, 3, &["late"])).await, Appended::Fenced(Fence::Newer));
    let (_, second) = begin(&guardian, "chat").await;
    assert_eq!(put(&zombie, append(&key, epoch, 3, &["late"])).await, Appended::Fenced(Fence::Newer));
    write(&guardian, &key, second, 1, &["3"]).await;
    let held = held(&guardian, &key).await;
    assert!(!held.contains(&"late".to_owned()), "{held:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_an_end_elsewhere_seals() {
    let server = RedisServer::start();
    let (zombie, guardian) = (connect(&server.url()).await, connect(&server.url()).await);
    let (key, epoch) = begin(&zombie, "chat").await;
    write(&zombie, &key, epoch, 1, &["1"]).await;
    write(&zombie, &key, epoch, 2, &["2"]).await;
    finish(&guardian, close(&key, epoch)).await;
    let late = put(&zombie, append(&key, epoch, 3, &["late"])).await;
    assert!(matches!(late, Appended::Fenced(Fence::Ended(_))), "{late:?}");
    let held = held(&guardian, &key).await;
    assert!(!held.contains(&"late".to_owned()), "{held:?}");
}
