//! Readers of a stream on other nodes.

use std::time::Duration;

use tokio::time::Instant;

/// What was last known of readers on other nodes.
#[derive(Default)]
pub(super) struct Elsewhere {
    pub(super) is_read: bool,
    /// When nothing could be known last, while they read.
    blind: Option<Instant>,
}

/// How long readers on other nodes have, after an outage, to say that they read.
const RETURNS: Duration = Duration::from_secs(10);

impl Elsewhere {
    /// Notes what another node said. While nothing can be known (`blind`), and for a moment after that, it stays as it was
    /// before. Returns whether the stream was read before.
    pub(super) fn note(&mut self, follows: bool, blind: bool) -> bool {
        let was = self.is_read;
        if follows {
            *self = Self { is_read: true, blind: None };
        } else if blind && self.is_read {
            self.blind = Some(Instant::now());
        } else if self.blind.is_none_or(|at| at.elapsed() >= RETURNS) {
            *self = Self::default();
        }
        was
    }
}
