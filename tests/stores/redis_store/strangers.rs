//! Servers that are too old, or that are not Redis.

use std::time::{Duration, Instant};

use resilient_sse::{RedisStore, RedisStoreError};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// Returns a stranger's answer to a command, by the command's first word; `None` for no answer.
type Answer = fn(&str) -> Option<String>;

/// Returns the error for a server with these answers.
async fn refusal(answer: Answer) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            // The client hangs up once it has seen the error.
            tokio::spawn(async move { drop(converse(connection, answer).await) });
        }
    });
    (error_of(&address).await.to_string(), address)
}

async fn error_of(address: &str) -> RedisStoreError {
    let began = Instant::now();
    let error = RedisStore::connect(&format!("redis://{address}")).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
    error
}

async fn converse(connection: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut connection = BufReader::new(connection);
    loop {
        let count = number(&mut connection).await?;
        let mut words = Vec::new();
        for _ in 0..count {
            let mut word = vec![0; number(&mut connection).await? + 2];
            connection.read_exact(&mut word).await?;
            words.push(String::from_utf8_lossy(&word).trim_end().to_uppercase());
        }
        match words.first().and_then(|word| answer(word)) {
            Some(answer) => connection.write_all(answer.as_bytes()).await?,
            None => std::future::pending().await,
        }
    }
}

/// Parses a number such as that of `*3` or `$12`.
async fn number(connection: &mut BufReader<TcpStream>) -> std::io::Result<usize> {
    let mut line = String::new();
    connection.read_line(&mut line).await?;
    line.trim_end().get(1..).and_then(|number| number.parse().ok()).ok_or(std::io::ErrorKind::UnexpectedEof.into())
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

#[tokio::test]
async fn an_older_server_is_refused() {
    let (error, address) = refusal(|word| {
        Some(match word {
            "HELLO" => "%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n".to_owned(),
            "INFO" => bulk("# Server\r\nredis_version:6.2.14\r\nrun_id:abc\r\n"),
            _ => "+OK\r\n".to_owned(),
        })
    })
    .await;
    assert_eq!(error, format!("the server at {address} is Redis 6.2.14; 7.0 or later is needed, or Valkey"));
}

#[tokio::test]
async fn one_that_is_so_old_that_it_cannot_greet_is_refused() {
    let (error, address) = refusal(|word| {
        Some(match word {
            "HELLO" => "-ERR unknown command `HELLO`, with args beginning with: `3`\r\n".to_owned(),
            "INFO" => bulk("# Server\r\nredis_version:5.0.14\r\nrun_id:abc\r\n"),
            _ => "+OK\r\n".to_owned(),
        })
    })
    .await;
    assert!(error.contains(&address) && error.contains("RESP3"), "{error}");
}

#[tokio::test]
async fn one_that_does_not_say_what_it_is_is_refused() {
    let (error, address) = refusal(|word| {
        Some(match word {
            "HELLO" => "%0\r\n".to_owned(),
            "INFO" => bulk("# Server\r\n"),
            _ => "+OK\r\n".to_owned(),
        })
    })
    .await;
    assert!(error.contains(&address) && error.contains("7.0 or later is needed"), "{error}");
}

#[tokio::test]
async fn nonsense_is_refused() {
    let (error, address) = refusal(|_| Some("HTTP/1.1 400 Bad Request\r\n\r\n".to_owned())).await;
    assert!(error.starts_with(&format!("Redis at {address}")), "{error}");
}

#[tokio::test]
async fn silence_is_not_waited_out() {
    let (error, address) = refusal(|_| None).await;
    assert!(error.starts_with(&format!("Redis at {address}")), "{error}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_refused() {
    // The port is bound and not listened at, so that no other process gets it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let error = error_of(&address).await.to_string();
    assert!(error.starts_with(&format!("Redis at {address}: ")), "{error}");
}
