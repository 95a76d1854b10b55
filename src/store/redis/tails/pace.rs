//! How often others are told and asked, and how long an answer may take.

use std::time::Duration;

/// How often the producing node is told that a stream is followed here: well within `followed::ASKED_FOR`.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(3);
/// How long the listening connection may take for an answer.
pub(super) const ANSWER: Duration = Duration::from_secs(1);
/// Streams in one request of the net.
pub(super) const PAGE: usize = 200;

/// How often the net is drawn; a lost message is made up for within twice this.
pub(super) const NET: Duration = Duration::from_secs(1);
