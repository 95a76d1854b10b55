//! The readers of a stream on other nodes.

use std::time::Duration;

use tokio::time::Instant;

/// The last known state of the readers on other nodes.
#[derive(Default)]
pub(super) struct Elsewhere {
    pub(super) is_read: bool,
    /// When the store last could not tell, while there were readers.
    blind: Option<Instant>,
}

/// How long readers on other nodes have to announce themselves again after an outage.
const RETURNS: Duration = Duration::from_secs(10);

impl Elsewhere {
    /// Notes whether other nodes follow the stream. While the store cannot tell (`blind`), and for [`RETURNS`] after
    /// that, the earlier state stays. Returns whether the stream was read before.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readers_elsewhere_have_a_moment_to_announce_themselves_again_after_an_outage() {
        let mut elsewhere = Elsewhere::default();
        assert!(!elsewhere.note(false, true) && !elsewhere.is_read, "nobody read before the outage");
        elsewhere.note(true, false);
        assert!(elsewhere.note(false, true) && elsewhere.is_read);
        tokio::time::advance(RETURNS - Duration::from_millis(1)).await;
        assert!(elsewhere.note(false, false) && elsewhere.is_read);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(elsewhere.note(false, false) && !elsewhere.is_read);
        elsewhere.note(true, false);
        assert!(elsewhere.note(false, false) && !elsewhere.is_read, "without an outage they have left");
    }
}
