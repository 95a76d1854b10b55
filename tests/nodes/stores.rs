//! The forms of `--store`: the servers that it reaches, the logins, and the errors.

use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use http::StatusCode;
use resilient_sse::RedisStore;

use crate::{
    addresses,
    client::{Client, Visit},
    figure, node,
    support::{
        example::{Server, by_user, command, eventually},
        redis::{Options, RedisServer, Sentinels, Tls, acl_user},
    },
};

/// A node whose store does not work reports the cause in one sentence, without any password.
fn refused(store: &str, why: &str) {
    let output = command(&["--store", store]).output().expect("the server runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{store}: {said}");
    assert!(said.starts_with("the store cannot be used: ") && said.lines().count() == 1, "{store}: {said}");
    assert!(said.contains(why), "{store}: {said}");
    assert!(!said.contains("hunter2"), "{store}: {said}");
    assert!(output.stdout.is_empty(), "{store}");
}

#[test]
fn a_store_that_is_not_there_is_a_sentence() {
    let redis = RedisServer::start();
    let address = redis.address().to_string();
    redis.kill();
    for login in ["", "ada:hunter2@"] {
        refused(&format!("redis://{login}{address}"), &address);
        refused(&format!("rediss://{login}{address}"), &address);
        refused(&format!("redis+cluster://{login}{address}"), "");
        refused(&format!("redis+sentinel://{login}{address}/main"), "main");
    }
    refused("redis://ada:hunter2@127.0.0.1:port", "is no address");
    refused("redis+sentinel://ada:hunter2@127.0.0.1:1", "must end in the name");
    refused("redis+cluster://ada:hunter2@127.0.0.1:1/2", "names a database");
    refused(
        "redis+sentinel://127.0.0.1:1/main?sentinel_passwd=hunter2",
        "has a parameter `sentinel_passwd`, which is none of",
    );
}

#[test]
fn a_store_that_lets_nobody_in_is_a_sentence() {
    let redis = RedisServer::with(&Options::default().line(&acl_user("ada", "right", &["ping"], "sse:")));
    let address = redis.address();
    refused(&format!("redis://ada:hunter2@{address}"), &address.to_string());
    refused(&format!("redis://bob:hunter2@{address}"), &address.to_string());
    // The user may log in, but may not run any command.
    refused(&redis.url_as("ada", "right"), &address.to_string());
    // Redis has 16 databases.
    refused(&format!("redis://{address}/99"), &address.to_string());
    // Sentinels that accept the login, and others that do not.
    let sentinels = Sentinels::with_each(&Options::default().password("right"), &Options::default().password("own"));
    let url = sentinels.url().replacen("://", "://:right@", 1);
    refused(&format!("{url}?sentinel_password=hunter2"), "the Sentinels of `mymaster` refused the login: ");
    refused(&url.replacen("right", "hunter2", 1), "the Sentinels of `mymaster` refused the login: ");
    refused(&format!("{}?sentinel_password=own", url.replacen("right", "hunter2", 1)), "Redis at mymaster: ");
    // The server is no Cluster and no Sentinel.
    refused(&format!("redis+cluster://{address}"), "");
    refused(&format!("redis+sentinel://{address}/main"), "main");
    let sealed = RedisServer::with(&Options::default().tls(&Tls::generate()));
    refused(&sealed.tls_url(), "");
    refused(&sealed.tls_url().replace("rediss", "redis"), "");
}

/// Runs everything that a node asks of a store.
async fn whole_life(a: &Server, b: &Server) {
    for end in ["completed", "failed"] {
        let mut client = Client::of(&format!("/api/stream/{end}?n=30&rate=200&end={end}"));
        client.follow(&addresses(&[a, b]), 8).await;
        client.has_all(30, end);
    }
    let mut stopped = Client::of("/api/stream/stopped?n=1&rate=0&end=never");
    stopped.visit(a.address, 1).await;
    assert_eq!(b.delete("/api/stream/stopped").await, StatusCode::ACCEPTED);
    stopped.follow(&[b.address], usize::MAX).await;
    stopped.has_all(1, "cancelled");
    for (node, event) in [(a, r#"{"type":"token","data":1}"#), (b, r#"{"type":"completed","terminal":true}"#)] {
        let (status, told) = node.post("/api/stream/told/events", event).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{told}");
    }
    let mut relay = Client::of("/api/relay/told");
    assert_eq!(relay.visit(a.address, usize::MAX).await, Visit::Over);
    // The events have no names, as they were posted.
    let data: Vec<_> = relay.seen.iter().map(|(seen, _)| &*seen.data).collect();
    assert_eq!(data, [r#"{"type":"token","data":1}"#, r#"{"type":"completed","data":null}"#]);
    for (id, status) in
        [("completed", "completed"), ("failed", "failed"), ("stopped", "cancelled"), ("told", "completed")]
    {
        b.until_status(id, status).await;
    }
    assert_eq!(a.ask(by_user("/api/stream/mine?n=1&rate=0")).await.status(), StatusCode::OK);
    eventually(async || (b.listed("").await == ["mine"]).then_some(())).await;
    assert_eq!(figure(a, "storeErrors").await + figure(b, "storeErrors").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_needs_only_what_is_documented() {
    let user = acl_user("app", "s/e@c:ret", RedisStore::ACL_COMMANDS, "sse:");
    let redis = RedisServer::with(&Options::default().line(&user));
    let url = format!("{}/3", redis.url_as("app", "s%2Fe%40c%3Aret"));
    let options = ["--stale", "0.6", "--sweep", "0.2", "--recovery-window", "3", "--lifetime", "3"];
    let [a, b] = [(); 2].map(|()| node(&url, &options));
    whole_life(&a, &b).await;
    assert_eq!(redis.dbsize(), 0, "all is in database 3");
    assert!(redis.info("db3").is_some());
    // The guardians' work too: an orphan, and expired streams.
    let mut orphan = Client::of("/api/stream/orphan?n=100000&rate=50");
    orphan.visit(a.address, 5).await;
    a.kill();
    orphan.follow(&[b.address], usize::MAX).await;
    orphan.has_all(orphan.numbers().len() as u64, "orphaned");
    eventually(async || b.listed("").await.is_empty().then_some(())).await;
    eventually(async || (b.json("/api/stream/orphan/recover").await.0 == StatusCode::NOT_FOUND).then_some(())).await;
    assert_eq!(redis.denied(), [""; 0]);
}

/// G1: if a server answers commands but nothing can listen for changes, followers on other nodes are slower, and
/// nothing else changes.
#[tokio::test(flavor = "multi_thread")]
async fn g1_followers_get_by_without_a_listening_connection() {
    let allowed: Vec<_> = RedisStore::ACL_COMMANDS.iter().copied().filter(|command| *command != "subscribe").collect();
    let redis = RedisServer::with(&Options::default().line(&acl_user("app", "secret", &allowed, "sse:")));
    let [a, b] = [(); 2].map(|()| node(&redis.url_as("app", "secret"), &[]));
    let path = "/api/stream/slowly?n=200&rate=50";
    let mut first = Client::of(path);
    first.visit(a.address, 5).await;
    let mut follower = Client::of(path);
    assert_eq!(follower.visit(b.address, usize::MAX).await, Visit::Over);
    follower.has_all(200, "completed");
    // The followers must get events before the end, too.
    let came: Vec<_> = follower.seen.iter().map(|(_, at)| *at).collect();
    assert!(came[200] - came[0] > Duration::from_secs(1), "{:?}", came[200] - came[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_keep_services_apart() {
    let redis = RedisServer::start();
    let prefixed = ["--key-prefix", "app:"];
    let [a, b] = [node(&redis.url(), &prefixed), node(&redis.url(), &prefixed)];
    let other = node(&redis.url(), &[]);
    whole_life(&a, &b).await;
    assert_eq!(other.json("/api/stream/completed/recover").await.0, StatusCode::NOT_FOUND);
    assert_eq!(other.listed("").await, [""; 0]);
    let (own, foreign): (Vec<_>, Vec<_>) = redis.keys().into_iter().partition(|key| key.starts_with("app:"));
    assert!(own.len() > 8, "{own:?}");
    assert!(foreign.iter().all(|key| key.starts_with("sse:node:")), "{foreign:?}");
}

/// Writes an authority's certificate to a file, which `SSL_CERT_FILE` makes the system trust.
struct Authority(PathBuf);

impl Authority {
    fn of(tls: &Tls) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = env::temp_dir().join(format!("resilient-sse-nodes-{}-{number}.pem", std::process::id()));
        fs::write(&file, tls.ca_pem()).unwrap();
        Self(file)
    }

    /// A node that trusts it.
    fn node(&self, store: &str) -> Server {
        Server::run(command(&["--store", store]).env("SSL_CERT_FILE", &self.0))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A whole stream over TLS, where the system trusts the authority.
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_kept_over_tls() {
    let tls = Tls::generate();
    let redis = RedisServer::with(&Options::default().tls(&tls));
    let authority = Authority::of(&tls);
    let [a, b] = [(); 2].map(|()| authority.node(&redis.tls_url()));
    whole_life(&a, &b).await;
}

/// Behind Sentinels either side may have TLS, or both, and a login of its own.
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_kept_where_sentinels_or_servers_have_tls() {
    let tls = Tls::generate();
    let authority = Authority::of(&tls);
    let plain = |password| Options::default().password(password);
    let sealed = |password| plain(password).tls(&tls);
    let of_sentinels = Sentinels::with_each(&plain("p-pass"), &sealed("s-pass"));
    let of_servers = Sentinels::with_each(&sealed("p-pass"), &plain("s-pass"));
    for url in [
        format!(
            "redis+sentinel://:p-pass@{}/mymaster?sentinel_password=s-pass&sentinel_tls=true",
            of_sentinels.tls_addresses()
        ),
        format!(
            "rediss+sentinel://:p-pass@{}/mymaster?sentinel_password=s-pass&sentinel_tls=false",
            of_servers.addresses()
        ),
        format!("rediss+sentinel://:p-pass@{}/mymaster?sentinel_password=s-pass", of_servers.tls_addresses()),
    ] {
        let [a, b] = [(); 2].map(|()| authority.node(&url));
        whole_life(&a, &b).await;
        of_servers.master().flushall();
    }
}
