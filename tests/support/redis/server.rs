//! One Redis server.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Options, eventually, folder::Folder, options::Role, port::Port, process::Process};

/// A running server. Dropping it ends its process and frees its ports and folder.
pub struct RedisServer {
    // Fields are dropped in order: the process must end before its folder is removed.
    process: Mutex<Process>,
    config: PathBuf,
    port: Port,
    tls_port: Option<Port>,
    pub(super) password: Option<String>,
    role: Role,
    _folder: Folder,
}

/// Another program took the port after it was chosen and before the server bound it.
struct PortTaken;

impl RedisServer {
    /// Starts a server that persists nothing, and waits until it serves.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// Starts a server with options, and waits until it serves.
    pub fn with(options: &Options) -> Self {
        loop {
            let server = Self::spawn(options);
            if server.settle().is_ok() {
                return server;
            }
        }
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// Returns a URL such as `redis://127.0.0.1:6379`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Returns the URL with a user's name and password.
    pub fn url_as(&self, name: &str, password: &str) -> String {
        format!("redis://{name}:{password}@{}", self.address())
    }

    /// Returns a URL such as `rediss://127.0.0.1:6379`.
    pub fn tls_url(&self) -> String {
        let port = self.tls_port().expect("the server was started with TLS");
        format!("rediss://{}:{port}", Ipv4Addr::LOCALHOST)
    }

    pub(super) fn tls_port(&self) -> Option<u16> {
        self.tls_port.as_ref().map(Port::number)
    }

    /// Kills the server, like a crash.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Kills the server if it runs, and starts it again with the same port and folder.
    pub fn restart(&self) {
        let mut process = self.process();
        process.kill();
        *process = self.run();
        drop(process);
        self.wait_ready();
    }

    /// Hangs the server: its connections stay, and it answers nothing.
    pub fn stop(&self) {
        self.process().pause();
    }

    /// Resumes the server after [`stop`](Self::stop).
    pub fn cont(&self) {
        self.process().resume();
    }

    /// Returns whether the server was neither killed nor stopped through this handle.
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// Waits until the server serves, with all of its data loaded.
    pub fn wait_ready(&self) {
        assert!(self.settle().is_ok(), "port {} was taken meanwhile", self.port());
    }

    /// Returns its log since its first start.
    pub fn log(&self) -> String {
        self.process().log()
    }

    fn spawn(options: &Options) -> Self {
        let folder = Folder::new();
        let port = match options.role {
            Role::ClusterNode => Port::claim_for_cluster(),
            Role::Server | Role::Sentinel => Port::claim(),
        };
        let tls_port = options.tls.is_some().then(Port::claim);
        let config = folder.write("redis.conf", &options.file(&folder, &port, tls_port.as_ref()));
        let process = Mutex::new(run(&config, options.role));
        let password = options.password.clone();
        Self { process, config, port, tls_port, password, role: options.role, _folder: folder }
    }

    fn run(&self) -> Process {
        run(&self.config, self.role)
    }

    /// Waits until the server serves, or has ended because its port was taken.
    fn settle(&self) -> Result<(), PortTaken> {
        eventually("the server serves", || {
            let mut process = self.process();
            if process.has_exited() {
                let taken = process.log().contains("Address already in use");
                assert!(taken, "the server ended:\n{}", process.log_end());
                return Some(Err(PortTaken));
            }
            let id = process.id();
            drop(process);
            self.serves(id).then_some(Ok(()))
        })
    }

    /// Returns whether the process with this id answers on the port and has loaded its data.
    fn serves(&self, id: u32) -> bool {
        let Ok(info) = self.try_ask::<String>(&["INFO", "everything"]) else { return false };
        let has = |line: &str| info.lines().any(|other| other == line);
        has(&format!("process_id:{id}")) && !has("loading:1")
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(config: &std::path::Path, role: Role) -> Process {
    let arguments: &[_] = if role == Role::Sentinel { &["--sentinel"] } else { &[] };
    Process::spawn(config, arguments)
}
