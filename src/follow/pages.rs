//! How a follower handles a page of the log.

use super::{
    body::{FollowBody, LastRead, Phase},
    closing::End,
    request::Unknown,
    tell::tell_step,
};
use crate::{
    model::{
        error::{BodyError, StoreError},
        stream::{Ended, Origin, RecordKind, StreamState},
    },
    store::Page,
    telemetry::log_debug,
    wire::frame::without_first,
};

impl FollowBody {
    pub(super) fn take_page(&mut self, page: Result<Option<Page>, StoreError>) -> bool {
        match page {
            Err(error) => self.take_error(&error),
            // No event was given yet, so the end is in the client's own cursor.
            Ok(None) if self.unopened.is_some() && self.replayer.place.has_end() => self.finish_cleanly(),
            Ok(None) if self.unopened.is_some() => {
                // Every event of a stream that is not opened yet is new to the client.
                self.replayer.wants_all();
                self.note_answer();
                self.note_read();
                self.state = Phase::Waiting;
                true
            }
            Ok(None) => self.break_off(BodyError::Gone),
            // The client has the end already. The store did not answer when the request was admitted, or it lost the
            // end, which is about to be sent to it again.
            Ok(Some(page)) if self.replayer.place.has_end_of(page.epoch) => self.finish_cleanly(),
            Ok(Some(page)) => self.take_known(&page),
        }
    }

    fn take_known(&mut self, page: &Page) -> bool {
        self.note_answer();
        self.unopened = None;
        self.take_unknown(page);
        if let Some(following) = &mut self.following {
            following.enter(&self.node, &self.key, self.replayer.place.at());
        }
        self.write_page(page)
    }

    /// Takes from the first page what was not known of the stream when the request was admitted.
    fn take_unknown(&mut self, page: &Page) {
        match std::mem::replace(&mut self.unknown, Unknown::Nothing) {
            Unknown::Nothing => return,
            Unknown::Response => {
                self.kept = Some(page.headers.clone());
                return self.speaker.set_retry(page.inner_retry);
            }
            Unknown::Stream => {}
            Unknown::StreamAndVoice => self.manner.voice = page.voice,
        }
        let prefix = (page.origin == Origin::Generated).then(|| self.key.id.clone());
        self.speaker.set_stream(prefix, page.inner_retry, self.manner.voice);
    }

    /// Notes that the store has answered, after it may have failed before.
    fn note_answer(&mut self) {
        self.backoff.succeeded();
        self.failing = false;
    }

    /// Notes that a last read is done: the log was read to its end, could not be read, or has no end to reach.
    fn note_read(&mut self) {
        if self.last_read == LastRead::UnderWay {
            self.last_read = LastRead::Done;
        }
    }

    /// Asks the store again after a pause. If a new run waits for the reader, the reader switches to it instead, with a
    /// gap: the live run goes before missed events.
    fn take_error(&mut self, error: &StoreError) -> bool {
        if self.until.is_some() {
            self.replayer.place.unreadable();
            return self.hand_on();
        }
        log_debug!(error = %error, "a follower could not read from the store");
        self.note_read();
        self.failing = true;
        let pause = self.backoff.failed(crate::runtime::random::u128() as u64);
        self.state = Phase::Pausing(Box::pin(tokio::time::sleep(pause)));
        true
    }

    /// Writes a page's events, and takes the next step.
    fn write_page(&mut self, page: &Page) -> bool {
        if self.replayer.starts_over(page) {
            return self.fetch();
        }
        for record in &page.records {
            if self.until.is_some_and(|until| record.id > until) {
                return self.hand_on();
            }
            let Some(step) = self.replayer.take(record) else { continue };
            if let Err(error) = tell_step(&self.node, &mut self.speaker, step, record.run()) {
                return self.break_off(error);
            }
            match &record.kind {
                RecordKind::Events(frame) => {
                    let framing = &*self.node.framing;
                    self.speaker.frame(without_first(framing, frame, step.skipped), record.id);
                }
                RecordKind::End(ended) => return self.end(End::of(Ended::clone(ended))),
                RecordKind::Run { .. } => {}
            }
        }
        self.go_on_after(page)
    }

    fn go_on_after(&mut self, page: &Page) -> bool {
        let is_first = self.replayer.has_read();
        let top = if page.more { None } else { Some(page.top) };
        self.read_up_to = self.replayer.place.at().max(top);
        if !page.more || !page.state.is_terminal() {
            // The page is the last one, or the stream runs on (on another node), so that there is no end to reach.
            self.note_read();
        }
        if page.more {
            self.reads_ahead = is_first;
            return self.fetch();
        }
        if self.until.is_some() {
            return self.hand_on();
        }
        if page.state == StreamState::Interrupted {
            // The client reconnects, and its request is admitted anew.
            let is_draining = self.node.is_draining();
            return self.break_off(if is_draining { BodyError::Draining } else { BodyError::Interrupted });
        }
        self.state = Phase::Waiting;
        true
    }
}
