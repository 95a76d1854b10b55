//! The faults of the proxy, as a client and the server see them.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::support::redis::{End, PATIENCE, Proxy, RedisServer, eventually};

/// Long enough for an answer that will come.
const A_MOMENT: Duration = Duration::from_millis(100);

/// A command in Redis's inline form.
const INCR: &str = "INCR n\r\n";

#[test]
fn it_forwards_and_counts() {
    let (_server, proxy) = proxied();
    let mut client = connect(&proxy);
    assert_eq!(client.ask(INCR).unwrap(), ":1\r\n");
    assert_eq!((proxy.connections(), proxy.open_connections()), (1, 1));
    assert_eq!((proxy.request_bytes(), proxy.reply_bytes()), (8, 4));
    drop(client);
    eventually("the connection ends", || (proxy.open_connections() == 0).then_some(()));
}

#[test]
fn it_cuts_by_reset_or_in_order() {
    let (_server, proxy) = proxied();
    for end in [End::Reset, End::Finish] {
        let mut client = connect(&proxy);
        client.ask(INCR).unwrap();
        proxy.cut(end);
        assert_eq!(proxy.open_connections(), 0);
        let seen = client.hear();
        match end {
            End::Reset => assert_eq!(seen.unwrap_err().kind(), ErrorKind::ConnectionReset),
            End::Finish => assert_eq!(seen.unwrap(), ""),
        }
    }
    assert_eq!(connect(&proxy).ask(INCR).unwrap(), ":3\r\n");
}

#[test]
fn it_refuses_only_new_connections() {
    let (_server, proxy) = proxied();
    let mut old = connect(&proxy);
    old.ask(INCR).unwrap();
    proxy.refuse(true);
    connect(&proxy).ask(INCR).unwrap_err();
    assert_eq!(old.ask(INCR).unwrap(), ":2\r\n");
    proxy.refuse(false);
    assert_eq!(connect(&proxy).ask(INCR).unwrap(), ":3\r\n");
}

#[test]
fn frozen_it_keeps_connections_and_forwards_nothing() {
    let (server, proxy) = proxied();
    let mut client = connect(&proxy);
    client.ask(INCR).unwrap();
    proxy.freeze(true);
    for client in [&mut client, &mut connect(&proxy)] {
        assert_eq!(client.ask_briefly(INCR).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    assert_eq!(server.ask::<u32>(&["GET", "n"]), 1);
    proxy.freeze(false);
    client.hear().unwrap();
}

#[test]
fn it_strands_old_connections_only() {
    let (_server, proxy) = proxied();
    let mut old = connect(&proxy);
    old.ask(INCR).unwrap();
    proxy.strand();
    assert_eq!(old.ask_briefly(INCR).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(connect(&proxy).ask(INCR).unwrap(), ":2\r\n");
    assert_eq!(old.ask_briefly(INCR).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn it_delays_each_way_and_keeps_the_pace() {
    let (_server, proxy) = proxied();
    proxy.delay(Duration::from_millis(50));
    let mut client = connect(&proxy);
    let begun = Instant::now();
    for _ in 0..20 {
        client.say(INCR).unwrap();
        // Separate chunks that are on the way at the same time.
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut replies = String::new();
    while !replies.ends_with(":20\r\n") {
        replies += &client.hear().unwrap();
    }
    let took = begun.elapsed();
    assert!((100..1000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn it_cuts_in_the_middle_of_a_pipeline() {
    let (server, proxy) = proxied();
    let mut client = connect(&proxy);
    proxy.cut_after_bytes(5 * INCR.len() as u64 + 3);
    client.say(&INCR.repeat(10)).unwrap();
    let end = eventually("the cut", || client.hear().err());
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    eventually("the server runs what it got", || (server.ask::<u32>(&["GET", "n"]) == 5).then_some(()));
    assert_eq!(connect(&proxy).ask(INCR).unwrap(), ":6\r\n");
}

#[test]
fn it_loses_replies() {
    let (server, proxy) = proxied();
    let mut client = connect(&proxy);
    proxy.drop_replies(true);
    assert_eq!(client.ask_briefly(INCR).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(server.ask::<u32>(&["GET", "n"]), 1, "the request was not lost");
    proxy.cut(End::Reset);
    proxy.drop_replies(false);
    client.hear().unwrap_err();
    assert_eq!(connect(&proxy).ask(INCR).unwrap(), ":2\r\n");
}

#[test]
fn it_can_lead_elsewhere() {
    let (_server, proxy) = proxied();
    let other = RedisServer::start();
    let mut old = connect(&proxy);
    old.ask(INCR).unwrap();
    proxy.point_at(other.address());
    assert_eq!(old.ask(INCR).unwrap(), ":2\r\n");
    assert_eq!(connect(&proxy).ask(INCR).unwrap(), ":1\r\n");
    other.kill();
    connect(&proxy).ask(INCR).unwrap_err();
}

fn proxied() -> (RedisServer, Proxy) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    (server, proxy)
}

/// A client that reports what happens on its socket.
struct Client(TcpStream);

fn connect(proxy: &Proxy) -> Client {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client(stream)
}

impl Client {
    fn say(&mut self, commands: &str) -> io::Result<()> {
        self.0.write_all(commands.as_bytes())
    }

    /// Returns the bytes that arrived; none at the end.
    fn hear(&mut self) -> io::Result<String> {
        let mut buffer = [0; 1024];
        let length = self.0.read(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    fn ask(&mut self, command: &str) -> io::Result<String> {
        self.say(command)?;
        let answer = self.hear()?;
        if answer.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
    }

    /// Sends a command, and waits only briefly for an answer.
    fn ask_briefly(&mut self, command: &str) -> io::Result<String> {
        self.0.set_read_timeout(Some(A_MOMENT))?;
        let answer = self.ask(command);
        self.0.set_read_timeout(Some(PATIENCE))?;
        answer
    }
}
