//! A TCP proxy before a server, with the faults of a network.

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
    /// By RST, as when a host or a firewall has forgotten it.
    Reset,
    /// By FIN, as when the server closes it.
    Finish,
}

/// A proxy on a port of its own.
///
/// It runs on a thread of its own, so that neither a paused clock nor a blocked test holds it up. A control holds
/// for all that is sent after it has returned.
pub struct Proxy {
    address: SocketAddr,
    controls: Arc<Controls>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts one before a server, which need not run yet.
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

    /// As `redis://127.0.0.1:6379`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Where new connections go from now on, as after a change of DNS; those that are open stay.
    pub fn point_at(&self, server: SocketAddr) {
        self.controls.set(|faults| faults.server = server);
    }

    /// Ends all connections; new ones are accepted.
    ///
    /// What the proxy has not forwarded by then is lost; the server handles what it got.
    pub fn cut(&self, end: End) {
        let connections = self.controls.cut(end);
        eventually("the connections end", || (connections.receiver_count() == 0).then_some(()));
    }

    /// Ends all connections once so many more bytes went to the server, counted over all of them.
    pub fn cut_after_bytes(&self, bytes: u64) {
        self.controls.cut_after(bytes);
    }

    /// Leaves all connections half open for good: they stay, and nothing passes in either direction, as when a host went
    /// away without a word. New ones are as any.
    pub fn strand(&self) {
        self.controls.strand();
    }

    /// Whether to reset new connections at once; those that are open stay.
    pub fn refuse(&self, refuse: bool) {
        self.controls.set(|faults| faults.refuse = refuse);
    }

    /// Whether to forward nothing, in neither direction, while all connections stay and new ones are accepted.
    /// What came meanwhile is forwarded when this ends.
    ///
    /// This is how a half-open connection looks to a program. The system still acknowledges what it sends, so
    /// neither keepalive nor `TCP_USER_TIMEOUT` notices.
    pub fn freeze(&self, freeze: bool) {
        self.controls.set(|faults| faults.freeze = freeze);
    }

    /// How long bytes take each way, to the millisecond; they stay in order, and any number may be on the way.
    pub fn delay(&self, delay: Duration) {
        self.controls.set(|faults| faults.delay = delay);
    }

    /// Whether to forward requests, but to lose their replies.
    ///
    /// A client cannot tell which replies it lost: [`cut`](Self::cut) before this ends, or it takes later ones for
    /// them.
    pub fn drop_replies(&self, drop: bool) {
        self.controls.set(|faults| faults.drop_replies = drop);
    }

    /// How many connections came so far, refused ones too.
    pub fn connections(&self) -> u64 {
        self.controls.connections.total()
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.controls.open()
    }

    /// How many bytes went to the server so far.
    pub fn request_bytes(&self) -> u64 {
        self.controls.request_bytes.total()
    }

    /// How many bytes went to clients so far.
    pub fn reply_bytes(&self) -> u64 {
        self.controls.reply_bytes.total()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic, if it had one, has told all there is.
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
