//! A proxy in front of the nodes. It cuts responses at a given byte, and demands bearer tokens.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::support::redis::End;

/// The plan for one connection.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The node that the connection leads to.
    pub node: SocketAddr,
    /// The number of response bytes after which the connection ends, and the way it ends. `None` if it is not cut.
    pub cut: Option<(u64, End)>,
}

/// A running proxy. Dropping the handle stops it.
pub struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    /// The plans for the next connections. The last plan applies to all further connections.
    plans: Mutex<VecDeque<Plan>>,
    /// The bearer token that requests must have. Others are answered with 401.
    token: Mutex<Option<String>>,
    /// The number of connections so far.
    connections: Mutex<usize>,
}

impl Front {
    pub async fn start(plans: impl IntoIterator<Item = Plan>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let shared = Arc::new(Shared {
            plans: Mutex::new(plans.into_iter().collect()),
            token: Mutex::default(),
            connections: Mutex::default(),
        });
        let address = listener.local_addr().expect("a bound address");
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Demands this bearer token in requests on new connections. Without it, they are answered with 401.
    pub fn require_token(&self, token: &str) {
        *self.shared.token.lock().unwrap() = Some(token.to_owned());
    }

    pub fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut serving = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("the listener accepts");
        *shared.connections.lock().unwrap() += 1;
        let mut plans = shared.plans.lock().unwrap();
        let plan = if plans.len() > 1 { plans.pop_front() } else { plans.front().copied() };
        drop(plans);
        let token = shared.token.lock().unwrap().clone();
        // Ignore errors: the tests break connections on purpose.
        serving.spawn(async move { drop(serve(client, plan.expect("a plan"), token).await) });
    }
}

async fn serve(mut client: TcpStream, plan: Plan, token: Option<String>) -> io::Result<()> {
    let head = head(&mut client).await?;
    if let Some(token) = token
        && !head.to_lowercase().contains(&format!("authorization: bearer {token}\r\n"))
    {
        let refused = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 7\r\n\r\nsign in";
        client.write_all(refused.as_bytes()).await?;
        return client.shutdown().await;
    }
    let mut node = TcpStream::connect(plan.node).await?;
    client.set_nodelay(true)?;
    node.set_nodelay(true)?;
    node.write_all(head.as_bytes()).await?;
    let (mut from_client, mut to_client) = client.split();
    let (from_node, mut to_node) = node.split();
    let limit = plan.cut.map_or(u64::MAX, |(bytes, _)| bytes);
    let mut replies = from_node.take(limit);
    tokio::select! {
        requests = copy(&mut from_client, &mut to_node) => requests?,
        replies = copy(&mut replies, &mut to_client) => replies?,
    };
    match plan.cut {
        Some((_, End::Reset)) => client.set_zero_linger(),
        _ => client.shutdown().await,
    }
}

/// Reads a request's head, and the bytes that arrived with it.
async fn head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    String::from_utf8(head).map_err(io::Error::other)
}
