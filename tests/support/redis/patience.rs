//! Waits for a condition, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The time after which a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Calls `ask` until it returns a value. Panics after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "did not happen within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
