//! Clients that the host makes.

use redis::{
    Client,
    sentinel::{SentinelClient, SentinelServerType},
};
use resilient_sse::RedisStore;

use crate::{
    redis_store::steps::{begin, held, write},
    support::redis::{RedisServer, Sentinels},
};

async fn works(store: &RedisStore) {
    let (key, epoch) = begin(store, "chat").await;
    write(store, &key, epoch, 1, &["a"]).await;
    assert_eq!(held(store, &key).await, ["r", "a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_for_one_server() {
    let server = RedisServer::start();
    let client = Client::open(format!("{}/2", server.url())).unwrap();
    works(&RedisStore::from_client(client).key_prefix("own:").connect().await.unwrap()).await;
    assert_eq!(server.dbsize(), 0, "in the database of the client's choosing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_for_sentinels() {
    let servers = Sentinels::start();
    let sentinels = (0..3).map(|number| servers.sentinel(number).url()).collect::<Vec<_>>();
    #[allow(clippy::unnecessary_to_owned, reason = "what is taken depends on the library's features")]
    let client = SentinelClient::build(sentinels, "mymaster".to_owned(), None, SentinelServerType::Master).unwrap();
    works(&RedisStore::from_sentinel_client(client, "mymaster").connect().await.unwrap()).await;
    assert!(servers.master().dbsize() > 0);
}

#[cfg(feature = "redis-cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn clients_for_a_cluster() {
    let cluster = crate::support::redis::RedisCluster::start();
    let clients = cluster.seeds().into_iter().take(1).map(|seed| Client::open(format!("redis://{seed}")).unwrap());
    let store = RedisStore::from_cluster_clients(clients).unwrap().connect().await.unwrap();
    works(&store).await;
    for id in ["b", "c", "d", "e", "f"] {
        begin(&store, id).await;
    }
    assert!(cluster.nodes().all(|node| node.dbsize() > 0), "also on nodes that it was not told of");
}
