//! Guarantees G1, G5 and G12 under load: nodes on threads of their own, readers that come, cut, stall and reconnect,
//! stops, drains, and a store that fails. Every reader judges what it gets.
//!
//! `STRESS_SECONDS` sets the duration of all tests together (default 20), `STRESS_SEED` the seed. A failure prints its seed.
//! Threads differ from run to run, so the same seed makes the same fault likely, not certain.

mod drains;
mod node;
mod reader;
mod streams;
mod transcript;
mod trouble;

use std::time::Duration;

use self::transcript::Transcript;

/// Returns the duration of one test, of `parts` that share the time.
fn share_of_time(parts: u32) -> Duration {
    let seconds = std::env::var("STRESS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(20);
    Duration::from_secs(seconds) / parts
}

/// Fails with the problems that readers found.
fn judge(what: &str, seed: u64, problems: &[String]) {
    let shown = problems.iter().take(3).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(problems.is_empty(), "{what}, STRESS_SEED={seed}: {} problems\n{shown}", problems.len());
}

/// Returns what readers saw, if none of them found a problem.
fn judged(what: &str, seed: u64, seen: Vec<Result<Transcript, String>>) -> Vec<Transcript> {
    let (mut fine, mut problems) = (Vec::new(), Vec::new());
    for seen in seen {
        match seen {
            Ok(seen) => fine.push(seen),
            Err(problem) => problems.push(problem),
        }
    }
    judge(what, seed, &problems);
    fine
}
