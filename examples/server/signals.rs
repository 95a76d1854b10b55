//! The signals that end the process. The first begins a graceful shutdown, the second exits at once.

use std::{future::Future, io, process};

/// The exit code after a second signal. Shells report it for a process that ctrl-c has ended (128 + SIGINT).
const AT_ONCE: i32 = 130;

/// Returns a future that is ready at the first signal. After that a second signal exits the process at once, for a user
/// who does not want to wait for the drain.
pub(crate) fn shutdown() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = Signals::listen()?;
    Ok(async move {
        signals.next().await;
        tokio::spawn(async move {
            signals.next().await;
            process::exit(AT_ONCE);
        });
    })
}

/// The streams of SIGTERM and SIGINT (ctrl-c).
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for ctrl-c, the only signal on this platform.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
