//! The intervals and limits of announcements and of the net.

use std::time::Duration;

/// How often a node announces to the producing node that it follows a stream: well within `followed::ASKED_FOR`.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(3);
/// How long an answer may take.
pub(super) const ANSWER: Duration = Duration::from_secs(1);
/// How many streams one flight of requests is about.
pub(super) const PAGE: usize = 200;

/// The interval of the net. A follower notices the change of a lost message within twice this time.
pub(super) const NET: Duration = Duration::from_secs(1);
