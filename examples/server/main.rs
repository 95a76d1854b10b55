//! The whole library in one axum service: `cargo run --release --example server -- --help`.
//!
//! `options` reads the command line, `hub` sets up the library, and `routes` puts it into a router. `telling` has the
//! events that the handlers stream, `control` the routes that do not stream, `jobs` the background jobs that publish,
//! `endings` the `on_end` hook, and `signals` the signals that end the process. `demo` serves the page at `/`. For that
//! page, `cut` drops connections, and `origins` lets the page of one node read from another. For a first look,
//! `examples/axum.rs` is shorter.

mod control;
mod cut;
mod demo;
mod endings;
mod hub;
mod jobs;
mod options;
mod origins;
mod routes;
mod signals;
mod telling;
mod text;

use std::{
    future::Future,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use axum::{Router, serve::ListenerExt as _};
use resilient_sse::Guardian;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::{cut::Readers, jobs::Jobs, options::Options, routes::App};

/// How long connections may take to end once all streams have ended. Without a limit, a response that the library does
/// not guard, such as that of `/plain`, could keep the process alive for ever.
const LAST_CALL: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let done = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => run(options).await,
        Ok(None) => {
            print!("{}", options::HELP);
            Ok(())
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal comes, then shuts down gracefully. The error is a sentence.
async fn run(options: Options) -> Result<(), String> {
    let jobs = Jobs::new(options.jobs.clone())?;
    let (sse, guardian) = hub::build(&options, &jobs).await?;
    let signal = signals::shutdown().map_err(|error| format!("signal handlers cannot be installed: {error}"))?;
    let listener = TcpListener::bind(&options.listen)
        .await
        .map_err(|error| format!("`--listen {}` does not work: {error}", options.listen))?;
    let address = listener.local_addr().map_err(|error| format!("the socket has no address: {error}"))?;
    let draining = sse.draining();
    let app = routes::router(App { sse, jobs, options: Arc::new(options), readers: Readers::default() });
    announce(&format!("listening on http://{address}"))
        .map_err(|error| format!("stdout cannot be written: {error}"))?;
    serve(listener, app, draining, guardian, signal).await.map_err(|error| format!("the server failed: {error}"))
}

/// Runs the server and the guardian.
async fn serve(
    listener: TcpListener,
    app: Router,
    draining: impl Future<Output = ()> + Send + 'static,
    guardian: Guardian,
    signal: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        // Disable Nagle's algorithm, which would delay a small packet such as an event.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
    });
    // Both shut down at the same time: the server closes a connection once its response has ended, and the guardian
    // ends the streams within its time limit.
    let server = tokio::spawn(axum::serve(listener, app).with_graceful_shutdown(draining).into_future());
    let guardian = tokio::spawn(guardian.with_graceful_shutdown(signal));
    let report = guardian.await.map_err(io::Error::other)?;
    tracing::info!(?report, "all streams are settled");
    match tokio::time::timeout(LAST_CALL, server).await {
        Ok(served) => served.map_err(io::Error::other)?,
        Err(_) => Ok(()),
    }
}

/// Prints a line to stdout and flushes it. The first line of the process says where the server listens.
fn announce(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
