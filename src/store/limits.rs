//! How long a request to the store may take.

use std::time::Duration;

use crate::model::config::Settings;

/// The time limits, by what is asked.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// A write of the hot path.
    pub(super) write: Duration,
    /// A request that takes several round trips while somebody waits for it.
    open: Duration,
    /// A beat. Other nodes judge this one by its beats, so one that hangs must not delay the next.
    beat: Duration,
    /// A request that nobody waits for.
    background: Duration,
}

impl Limits {
    pub(super) fn new(settings: &Settings) -> Self {
        let Settings { store_limit: write, open_limit: open, background_limit: background, .. } = *settings;
        Self { write, open, beat: (settings.stale_after / 6).min(open).max(write), background }
    }

    pub(super) fn of(self, operation: &str, in_background: bool) -> Duration {
        match operation {
            _ if in_background => self.background,
            "open" | "read" | "info" | "pointer" => self.open,
            "beat" => self.beat,
            "list" | "active_count" | "stale" | "delete" | "due" | "hook_done" | "unpoint" | "give_way" | "renew" => {
                self.background
            }
            _ => self.write,
        }
    }
}
