//! One server: the data it keeps, the commands it refuses, how it hangs.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    panic::catch_unwind,
    sync::Arc,
    time::Duration,
};

use redis::{ErrorKind, ServerErrorKind, cmd};
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::CertificateDer};
use tokio::net::TcpSocket;

use crate::support::redis::{Options, RedisServer, Tls, Ttl, acl_user};

#[test]
fn restarted_it_is_empty() {
    let server = RedisServer::start();
    server.command(&["SET", "key", "value"]);
    let port = server.port();
    server.kill();
    assert!(server.try_command(&["PING"]).is_err());
    server.restart();
    assert_eq!((server.port(), server.dbsize()), (port, 0));
}

#[test]
fn restarted_with_a_log_it_has_all() {
    let server = RedisServer::with(&Options::durable());
    for number in 0..100 {
        server.command(&["RPUSH", "list", &number.to_string()]);
    }
    server.restart();
    assert_eq!(server.ask::<usize>(&["LLEN", "list"]), 100);
}

#[test]
fn stopped_it_takes_connections_and_answers_none() {
    let server = RedisServer::start();
    server.stop();
    let error = server.try_command(&["PING"]).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(!server.is_running());
    server.cont();
    server.command(&["PING"]);
    server.stop();
    // The server still ends when it is dropped.
}

#[test]
fn full_it_refuses_writes() {
    let server = RedisServer::with(&Options::bounded("3mb"));
    let large = "x".repeat(500_000);
    let refused = (0..10).find_map(|n| server.try_command(&["SET", &n.to_string(), &large]).err());
    assert_eq!(refused.expect("full by then").code(), Some("OOM"));
    assert!(server.dbsize() > 0, "nothing was evicted");
}

#[test]
fn its_keys_can_be_looked_at() {
    let server = RedisServer::start();
    server.command(&["SET", "b", "1", "PX", "60000"]);
    server.command(&["SET", "a", "1"]);
    assert_eq!(server.keys(), ["a", "b"]);
    assert_eq!(server.keys_without_ttl(), ["a"]);
    assert!(matches!(server.ttl("b"), Ttl::Left(left) if left > Duration::from_secs(50)));
    assert_eq!((server.ttl("a"), server.ttl("c")), (Ttl::Forever, Ttl::Missing));

    let script: String = server.ask(&["SCRIPT", "LOAD", "return 1"]);
    server.script_flush();
    assert_eq!(server.try_command(&["EVALSHA", &script, "0"]).unwrap_err().code(), Some("NOSCRIPT"));
    server.flushall();
    assert_eq!(server.dbsize(), 0);
}

#[test]
fn a_user_may_do_what_the_line_says() {
    let line = acl_user("app", "secret", &["get", "set", "publish"], "sse:");
    let server = RedisServer::with(&Options::default().line(&line));
    let mut app = redis::Client::open(server.url_as("app", "secret")).unwrap().get_connection().unwrap();
    let mut run = |words: &[&str]| cmd(words[0]).arg(&words[1..]).query::<redis::Value>(&mut app);
    run(&["SET", "sse:key", "value"]).unwrap();
    run(&["PUBLISH", "sse:channel", "message"]).unwrap();
    let refused: [&[_]; 4] = [&["GET", "key"], &["PUBLISH", "channel", "message"], &["DEL", "sse:key"], &["INFO"]];
    for words in refused {
        let error = run(words).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm), "{words:?}: {error}");
    }
}

#[test]
fn it_speaks_tls_to_who_trusts_its_authority() {
    let tls = Tls::generate();
    let server = RedisServer::with(&Options::default().tls(&tls));
    assert_eq!(ping_over_tls(&server, &tls).unwrap(), "+PONG\r\n");
    ping_over_tls(&server, &Tls::generate()).expect_err("another authority");
}

#[test]
fn many_at_once_have_ports_of_their_own() {
    let servers: Vec<_> = (0..5).map(|_| RedisServer::start()).collect();
    let ports: BTreeSet<_> = servers.iter().map(RedisServer::port).collect();
    assert_eq!(ports.len(), servers.len());
}

#[test]
fn a_port_that_was_taken_is_told_from_other_failures() {
    let server = RedisServer::start();
    server.kill();
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind(server.address()).unwrap();
    let failure = panic_of(|| server.restart());
    assert!(failure.contains("was taken meanwhile"), "{failure}");
    drop(taken);
    server.restart();

    let failure = panic_of(|| drop(RedisServer::with(&Options::default().line("no-such-option yes"))));
    assert!(failure.contains("Bad directive"), "the log's end is told: {failure}");
}

fn panic_of(run: impl FnOnce()) -> String {
    let panic = catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
    *panic.downcast::<String>().unwrap()
}

fn ping_over_tls(server: &RedisServer, trusted: &Tls) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(trusted.ca_der())).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
    let address = server.tls_url().strip_prefix("rediss://").unwrap().to_owned();
    let mut stream = rustls::StreamOwned::new(session, std::net::TcpStream::connect(address)?);
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
