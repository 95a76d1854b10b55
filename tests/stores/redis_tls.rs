//! Clients of the host's own over TLS, with an authority of its choosing.

use redis::{
    Client, ConnectionAddr, TlsCertificates, TlsMode,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use resilient_sse::RedisStore;

use crate::{
    redis_store::steps::{begin, held, write},
    support::redis::{Options, RedisServer, Sentinels, Tls},
};

async fn works(store: &RedisStore) {
    let (key, epoch) = begin(store, "chat").await;
    write(store, &key, epoch, 1, &["a"]).await;
    assert_eq!(held(store, &key).await, ["r", "a"]);
}

fn trusting(tls: &Tls) -> TlsCertificates {
    TlsCertificates { client_tls: None, root_cert: Some(tls.ca_pem().as_bytes().to_vec()) }
}

fn client(server: &RedisServer, trusted: &Tls) -> Client {
    Client::build_with_tls(server.tls_url(), trusting(trusted)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_the_hosts_own_is_trusted() {
    let tls = Tls::generate();
    let server = RedisServer::with(&Options::default().tls(&tls));
    works(&RedisStore::from_client(client(&server, &tls)).connect().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_is_not() {
    let server = RedisServer::with(&Options::default().tls(&Tls::generate()));
    let address = server.tls_url().replace("rediss://", "Redis at ");
    let own = RedisStore::from_client(client(&server, &Tls::generate()));
    for store in [own, RedisStore::builder(&server.tls_url()).unwrap()] {
        let error = store.connect().await.unwrap_err().to_string();
        assert!(error.starts_with(&address) && error.contains("certificate"), "{error}");
    }
}

/// A client whose Sentinels are reached over TLS if `sentinels` is given, and whose servers if `servers` is.
fn sentinel_client(all: &Sentinels, sentinels: Option<&Tls>, servers: Option<&Tls>) -> SentinelClient {
    let addresses = if sentinels.is_some() { all.tls_addresses() } else { all.addresses() };
    let addresses = addresses.split(',').map(|address| {
        let (host, port) = address.rsplit_once(':').unwrap();
        let (host, port) = (host.to_owned(), port.parse().unwrap());
        if sentinels.is_some() {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    });
    let mut builder = SentinelClientBuilder::new(addresses, "mymaster", SentinelServerType::Master)
        .unwrap()
        .set_client_to_redis_password("p-pass")
        .set_client_to_sentinel_password("s-pass");
    if let Some(tls) = sentinels {
        builder = builder.set_client_to_sentinel_certificates(trusting(tls));
    }
    if let Some(tls) = servers {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_redis_certificates(trusting(tls));
    }
    builder.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_behind_sentinels_has_tls_and_a_password_of_its_own() {
    let tls = Tls::generate();
    let plain = |password| Options::default().password(password);
    let sealed = |password| plain(password).tls(&tls);
    let connect = async |client| RedisStore::from_sentinel_client(client, "mymaster").connect().await.unwrap();

    let all = Sentinels::with_each(&plain("p-pass"), &sealed("s-pass"));
    works(&connect(sentinel_client(&all, Some(&tls), None)).await).await;
    let all = Sentinels::with_each(&sealed("p-pass"), &plain("s-pass"));
    works(&connect(sentinel_client(&all, None, Some(&tls))).await).await;
    let both = connect(sentinel_client(&all, Some(&tls), Some(&tls))).await;
    assert_eq!(held(&both, &crate::redis_store::steps::key("chat")).await, ["r", "a"]);
}
