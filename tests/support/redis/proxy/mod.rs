//! A TCP proxy in front of a server. It injects network faults.

mod connection;
mod controls;
mod pump;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{runtime, sync::oneshot};

use self::controls::Controls;
use super::eventually;

/// How a connection ends for the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// With RST, as if the host or a firewall no longer knew the connection.
    Reset,
    /// With FIN, as if the server closed it.
    Finish,
}

/// A proxy on a port of its own.
///
/// It runs on a thread of its own, so that neither a paused clock nor a blocked test delays it. A fault applies to all
/// bytes that are sent after the method that sets it has returned.
pub struct Proxy {
    address: SocketAddr,
    controls: Arc<Controls>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy in front of a server. The server need not run yet.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("a bound address");
        let controls = Arc::new(Controls::new(server));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn({
            let controls = controls.clone();
            move || run(listener, controls, stopped)
        });
        Self { address, controls, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns a URL such as `redis://127.0.0.1:6379`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Directs new connections to another server, as after a change of DNS. Open connections stay as they are.
    pub fn point_at(&self, server: SocketAddr) {
        self.controls.set(|faults| faults.server = server);
    }

    /// Ends all open connections. New ones are accepted.
    ///
    /// Bytes that the proxy has not forwarded yet are lost. The server handles all requests that have reached it.
    pub fn cut(&self, end: End) {
        let connections = self.controls.cut(end);
        eventually("the connections end", || (connections.receiver_count() == 0).then_some(()));
    }

    /// Resets all connections once `bytes` more bytes have gone to the server, counted over all connections.
    pub fn cut_after_bytes(&self, bytes: u64) {
        self.controls.cut_after(bytes);
    }

    /// Leaves all connections half open for good: they stay, and nothing passes in either direction, as after the power
    /// failure of a host. New connections work.
    pub fn strand(&self) {
        self.controls.strand();
    }

    /// Sets whether new connections are reset at once. Open connections stay.
    pub fn refuse(&self, refuse: bool) {
        self.controls.set(|faults| faults.refuse = refuse);
    }

    /// Sets whether the proxy holds back all bytes in both directions. Connections stay, and new ones are accepted. When
    /// the freeze ends, the proxy forwards what it has received meanwhile.
    ///
    /// To a program this looks like a half-open connection. The operating system still acknowledges the bytes that the
    /// program sends, so neither keepalive nor `TCP_USER_TIMEOUT` notices.
    pub fn freeze(&self, freeze: bool) {
        self.controls.set(|faults| faults.freeze = freeze);
    }

    /// Delays bytes in each direction, with a resolution of one millisecond. The delay does not change their order.
    pub fn delay(&self, delay: Duration) {
        self.controls.set(|faults| faults.delay = delay);
    }

    /// Sets whether the proxy drops all replies. It still forwards requests.
    ///
    /// Call [`cut`](Self::cut) before replies pass again: a client cannot tell which replies are missing, and would take
    /// a later reply for a lost one.
    pub fn drop_replies(&self, drop: bool) {
        self.controls.set(|faults| faults.drop_replies = drop);
    }

    /// The number of connections so far, refused ones included.
    pub fn connections(&self) -> u64 {
        self.controls.connections.total()
    }

    /// The number of open connections.
    pub fn open_connections(&self) -> usize {
        self.controls.open()
    }

    /// The number of bytes that have gone to the server.
    pub fn request_bytes(&self) -> u64 {
        self.controls.request_bytes.total()
    }

    /// The number of bytes that have gone to clients.
    pub fn reply_bytes(&self) -> u64 {
        self.controls.reply_bytes.total()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, its message is on standard error already.
            let _ = thread.join();
        }
    }
}

fn run(listener: TcpListener, controls: Arc<Controls>, stopped: oneshot::Receiver<()>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::select! {
            () = connection::accept(listener, controls) => {}
            _ = stopped => {}
        }
    });
}
