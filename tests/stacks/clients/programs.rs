//! The client programs. Each is a process of its own, which ends with its handle.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A running program. Dropping the handle kills it.
pub(crate) struct Program {
    child: Child,
    /// What it has written to its disk.
    profile: Option<PathBuf>,
}

impl Program {
    /// Starts a program. Panics with the installation command if it is missing.
    fn start(command: &mut Command, install: &str) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = started.unwrap_or_else(|error| panic!("`{name}` does not start ({error}): {install}"));
        Self { child, profile: None }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(profile) = &self.profile {
            let _ = fs::remove_dir_all(profile);
        }
    }
}

/// Debian's Chromium on a page, with an empty profile.
pub(crate) fn chromium(url: &str, folder: &Path) -> Program {
    let profile = folder.join(format!("profile-{}", std::process::id()));
    fs::create_dir_all(&profile).expect("a folder for the profile");
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        // Tests may run as root, in a container.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        // Chromium must talk to this test only.
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        // Its processes end with it.
        "--remote-debugging-port=0",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display())).arg(url).env("TMPDIR", &profile);
    let mut program = Program::start(&mut command, "apt-get install -y chromium");
    program.profile = Some(profile);
    program
}

/// Node on a script in `js`, with the npm packages that `js/package-lock.json` names.
pub(crate) fn node(folder: &Path, script: &str, arguments: &[String]) -> Program {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks/clients/js");
    fs::create_dir_all(folder).expect("a folder for the packages");
    for file in ["package.json", "package-lock.json", "watch.mjs", script] {
        fs::copy(sources.join(file), folder.join(file)).expect("a copy of the test's own file");
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]).arg(folder);
    let installed = npm.current_dir(folder).stdin(Stdio::null()).output();
    let installed = installed.unwrap_or_else(|error| panic!("`npm` does not start ({error}): apt-get install -y npm"));
    let said = String::from_utf8_lossy(&installed.stderr);
    assert!(installed.status.success(), "`npm ci --prefix {}` failed: {said}", folder.display());
    Program::start(Command::new("node").arg(folder.join(script)).args(arguments), "apt-get install -y nodejs")
}
