//! How often nodes announce and ask, and how long they wait for answers.

use std::time::Duration;

/// How often a node announces to the producing node that it follows a stream: well within `followed::ASKED_FOR`.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(3);
/// How long an answer may take.
pub(super) const ANSWER: Duration = Duration::from_secs(1);
/// How many streams one flight of requests is about.
pub(super) const PAGE: usize = 200;

/// How often the net is drawn. A lost message is made up for within twice this.
pub(super) const NET: Duration = Duration::from_secs(1);
