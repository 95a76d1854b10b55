//! A server's process. Its handle starts, signals and kills it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::eventually;

/// Returns the server program for this test crate, and the command that installs it: Valkey in crates whose names begin
/// with `valkey`, otherwise Redis.
fn program() -> (PathBuf, &'static str) {
    if env!("CARGO_CRATE_NAME").starts_with("valkey") {
        // `.ci/valkey` installs it beside cargo's `tmp` in the target folder.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("valkey");
        (folder.join("valkey-server"), ".ci/valkey")
    } else {
        ("redis-server".into(), "apt-get install -y redis-server")
    }
}

/// A process. Dropping the handle kills it.
pub(super) struct Process {
    child: Child,
    log: PathBuf,
    paused: bool,
    killed: bool,
}

impl Process {
    /// Starts a process with a configuration file. Its output goes to `log` beside the file.
    pub(super) fn spawn(config: &Path, arguments: &[&str]) -> Self {
        let log = config.with_file_name("log");
        let output = OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let errors: File = output.try_clone().expect("a second handle");
        let (program, installation) = program();
        let mut command = Command::new(&program);
        command.arg(config).args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => panic!("{} is missing; install it: {installation}", program.display()),
            _ => panic!("{} does not start: {error}", program.display()),
        });
        Self { child, log, paused: false, killed: false }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the process was neither killed nor paused through this handle.
    pub(super) fn is_running(&self) -> bool {
        !self.paused && !self.killed
    }

    /// Returns whether the process has ended, for whatever reason.
    pub(super) fn has_exited(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Stops the process with `SIGSTOP`, and waits until it has stopped.
    pub(super) fn pause(&mut self) {
        self.signal("STOP");
        eventually("the process stops", || self.has_stopped().then_some(()));
        self.paused = true;
    }

    pub(super) fn resume(&mut self) {
        self.signal("CONT");
        self.paused = false;
    }

    /// Kills the process, paused or not, and waits until its ports are free again.
    pub(super) fn kill(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.killed = true;
    }

    pub(super) fn log(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Returns the last lines of the log, for a panic's message.
    pub(super) fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Returns whether the process has stopped. Without `/proc`, assumes that the signal has had its effect.
    fn has_stopped(&self) -> bool {
        // `<id> (<name>) <state> ...`
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id()));
        stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    }

    fn signal(&self, signal: &str) {
        assert!(!self.killed, "a killed process takes no SIG{signal}");
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
