//! Runs the example server as a separate process, and sends it requests.

use std::{
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

use http::{Request, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use resilient_sse::test_util::{Transcript, collect, cut_after};
use serde_json::Value;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// The time after which a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server. Dropping the handle kills it.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server on a free port, and waits until it serves.
    pub fn start(options: &[&str]) -> Self {
        Self::run(&mut command(options))
    }

    /// Starts a server from a command that the test has prepared, and waits until it serves.
    pub fn run(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("stdout is text");
        let address = line.trim_end().strip_prefix("listening on http://").expect("the first line names the address");
        Self { address: address.parse().expect("an address"), child }
    }

    /// Sends the process a signal by its name.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Kills the process, like a crash.
    pub fn kill(mut self) {
        self.child.kill().expect("its own child can be killed");
        self.child.wait().expect("its own child can be waited for");
    }

    /// Waits until the server accepts no new connections. It then drains, and serves only its open responses.
    pub async fn until_closed(&self) {
        eventually(async || TcpStream::connect(self.address).await.is_err().then_some(())).await;
    }

    /// Waits until the process has ended.
    pub async fn exit(mut self) -> ExitStatus {
        eventually(async || self.child.try_wait().expect("the process can be waited for")).await
    }

    /// Sends a request over a connection of its own, which ends when the response is dropped.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let mut sender = connect(self.address).await.expect("the server accepts");
        sender.send_request(request).await.expect("the server answers")
    }

    pub async fn get(&self, path: &str) -> Response<Incoming> {
        self.ask(get(path)).await
    }

    /// Sends a request without a body.
    pub async fn ask(&self, request: request::Builder) -> Response<Incoming> {
        self.send(request.body(Full::default()).unwrap()).await
    }

    /// Reads a stream to its end.
    pub async fn collect(&self, path: &str) -> Transcript {
        self.read(get(path)).await
    }

    /// Sends a request without a body, and reads the stream in the response to its end.
    pub async fn read(&self, request: request::Builder) -> Transcript {
        let description = format!("{request:?}");
        let response = self.ask(request).await;
        assert_eq!(response.status(), StatusCode::OK, "{description}");
        whole(response).await
    }

    /// Reads a number of a stream's events, then drops the connection.
    pub async fn cut_after(&self, events: usize, path: &str) -> Transcript {
        cut_after(events, self.get(path).await.into_body()).await
    }

    pub async fn json(&self, path: &str) -> (StatusCode, Value) {
        answer(self.get(path).await).await
    }

    /// Returns the ids in the list of the user's streams.
    pub async fn listed(&self, query: &str) -> Vec<String> {
        let (status, listed) = answer(self.ask(by_user(&format!("/api/streams{query}"))).await).await;
        assert_eq!(status, StatusCode::OK, "{listed}");
        let streams = listed.as_array().expect("a list").iter();
        streams.map(|stream| stream["streamId"].as_str().expect("an id").to_owned()).collect()
    }

    /// Returns a figure of the node's health.
    pub async fn figure(&self, name: &str) -> u64 {
        let (_, health) = self.json("/healthz").await;
        health[name].as_u64().unwrap_or_else(|| panic!("{name}: {health}"))
    }

    pub async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        let request = Request::post(path).header("host", "test").body(Full::from(body.to_owned())).unwrap();
        answer(self.send(request).await).await
    }

    pub async fn delete(&self, path: &str) -> StatusCode {
        let request = Request::delete(path).header("host", "test").body(Full::default()).unwrap();
        self.send(request).await.status()
    }

    /// Waits until recovery reports that a stream has this status, and returns recovery's response.
    pub async fn until_status(&self, id: &str, status: &str) -> Value {
        eventually(async || {
            let (_, recovered) = self.json(&format!("/api/stream/{id}/recover")).await;
            (recovered["status"] == status).then_some(recovered)
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens a connection. Fails if nothing listens.
pub async fn connect(address: SocketAddr) -> io::Result<http1::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Opens a connection with a very small receive buffer, so that the server notices soon if the client stops reading.
pub async fn connect_narrow(address: SocketAddr) -> http1::SendRequest<Full<Bytes>> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size that the system takes");
    let stream = socket.connect(address).await.expect("the server accepts");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(async move { drop(connection.await) });
    sender
}

/// Opens an HTTP/2 connection. It closes when the last of its senders and responses is dropped.
pub async fn connect_http2(address: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("the server accepts");
    stream.set_nodelay(true).expect("an option of every TCP socket");
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(async move { drop(connection.await) });
    sender
}

pub fn get(path: &str) -> request::Builder {
    Request::get(path).header("host", "test")
}

/// A GET request of the user `u`.
pub fn by_user(path: &str) -> request::Builder {
    get(path).header("x-user-id", "u")
}

/// A GET request of an `EventSource` of the user `u`.
pub fn event_source(path: &str) -> request::Builder {
    by_user(path).header("accept", "text/event-stream")
}

/// Reads a number of events of a body, within the time limit. The rest stays in the body.
pub async fn some(events: usize, body: &mut Incoming) -> Transcript {
    timeout(PATIENCE, cut_after(events, body)).await.expect("events in time")
}

/// Reads a body until this text has arrived, within the time limit. The rest stays in the body.
pub async fn until(text: &str, body: &mut Incoming) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let frame = timeout(PATIENCE, body.frame()).await.unwrap_or_else(|_| panic!("nothing came after {read:?}"));
        let frame = frame.unwrap_or_else(|| panic!("the body ended after {read:?}")).expect("no error");
        read.push_str(&String::from_utf8_lossy(frame.data_ref().expect("data")));
    }
    read
}

/// Reads a body to its end, within the time limit.
pub async fn whole(response: Response<Incoming>) -> Transcript {
    timeout(PATIENCE, collect(response.into_body())).await.expect("an end in time")
}

/// Returns a response's status, and its body as JSON. A body that is not JSON becomes a JSON string.
pub async fn answer(response: Response<Incoming>) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.expect("the whole body").to_bytes();
    let text = String::from_utf8(body.to_vec()).expect("text");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Returns the numbers of the token events that a client has seen.
pub fn numbers(seen: &Transcript) -> Vec<u64> {
    let payloads = seen.data().into_iter().map(|data| serde_json::from_str(data).expect("JSON"));
    payloads.filter_map(|payload: Value| payload["s"].as_u64()).collect()
}

/// Calls `ask` until it returns a value. Panics after [`PATIENCE`].
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "the condition did not hold within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns the command that starts the server on a free port.
pub fn command(options: &[&str]) -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(BUILT.get_or_init(executable));
    command.args(["--listen", "127.0.0.1:0"]).args(options).env("RUST_LOG", "info");
    command
}

/// Returns the path of the example server, beside this test's executable.
///
/// If cargo built only some tests, the server may be missing, out of date, or built with fewer features than this test.
/// Then this function builds it.
fn executable() -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let profile = test.parent().and_then(Path::parent).expect("<target>/<profile>/deps/<test>");
    let server = profile.join("examples").join("server");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src", "examples/server", "examples/texts", "web/resilient-sse.js", "web/react.js"];
    let sources = sources.map(|source| newest(&root.join(source)));
    let built = server.metadata().and_then(|metadata| metadata.modified()).ok();
    if built < sources.into_iter().max().flatten() || !has_features(&server) {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "server"]).args(FEATURES).current_dir(root);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let target = profile.parent().expect("<target>/<profile>");
        assert!(build.env("CARGO_TARGET_DIR", target).status().expect("cargo runs").success(), "the example is built");
    }
    server
}

/// The features with which the example is built: those of this test.
const FEATURES: &[&str] = match (cfg!(feature = "full"), cfg!(feature = "test-util")) {
    (true, true) => &["--all-features"],
    (true, false) => &["--features", "full"],
    (false, _) => &[],
};

/// Returns whether the example has the features of this test.
///
/// The address is invalid, so the server always exits. A server without TLS, Cluster or Redis reports the missing
/// feature before it reports the invalid address.
fn has_features(server: &Path) -> bool {
    let mut asked = Command::new(server);
    let Ok(output) = asked.args(["--store", "rediss+cluster://127.0.0.1:1/2"]).output() else { return false };
    FEATURES.is_empty() || !String::from_utf8_lossy(&output.stderr).contains("needs the feature")
}

/// Returns when a file, or anything under a folder, was last changed.
fn newest(path: &Path) -> Option<SystemTime> {
    let Ok(folder) = path.read_dir() else { return path.metadata().and_then(|metadata| metadata.modified()).ok() };
    let entries = folder.filter_map(Result::ok);
    let changed = entries.filter_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => newest(&entry.path()),
        _ => entry.metadata().and_then(|metadata| metadata.modified()).ok(),
    });
    changed.max()
}
