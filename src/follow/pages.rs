//! What a page of the log means for a follower.

use super::{
    body::{FollowBody, LastLook, Phase},
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
            // Nothing was given yet, so it is the client's own cursor that says so.
            Ok(None) if self.unopened.is_some() && self.replayer.place.has_end() => self.finish_cleanly(),
            Ok(None) if self.unopened.is_some() => {
                self.note_answer();
                self.note_look();
                self.state = Phase::Waiting;
                true
            }
            Ok(None) => self.break_off(BodyError::Gone),
            // The request was admitted without a word of the store, or the store forgot the end and is about to be told it again.
            Ok(Some(page)) if self.replayer.place.has_end_of(page.epoch) => self.finish_cleanly(),
            Ok(Some(page)) => self.take_known(&page),
        }
    }

    fn take_known(&mut self, page: &Page) -> bool {
        self.note_answer();
        self.unopened = None;
        self.learn(page);
        if let Some(following) = &mut self.following {
            following.enter(&self.node, &self.key, self.replayer.place.at());
        }
        self.tell(page)
    }

    /// The first page says what was not known of the stream.
    fn learn(&mut self, page: &Page) {
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

    /// The store has answered: that it failed before is over.
    fn note_answer(&mut self) {
        self.backoff.succeeded();
        self.failing = false;
    }

    /// The log of a stream that has ended was looked at up to its end, or could not be, or has none: a last look is done.
    fn note_look(&mut self) {
        if self.last_look == LastLook::UnderWay {
            self.last_look = LastLook::Done;
        }
    }

    /// The store is asked again, unless a new run waits for the reader: that goes before what was missed.
    fn take_error(&mut self, error: &StoreError) -> bool {
        if self.until.is_some() {
            self.replayer.place.unreadable();
            return self.hand_on();
        }
        log_debug!(error = %error, "a follower could not read");
        self.note_look();
        self.failing = true;
        let pause = self.backoff.failed(crate::runtime::random::u128() as u64);
        self.state = Phase::Pausing(Box::pin(tokio::time::sleep(pause)));
        true
    }

    /// Writes a page's events, and sees how it goes on.
    fn tell(&mut self, page: &Page) -> bool {
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
            // Of a stream that runs on, on another node, there is no end to be reached.
            self.note_look();
        }
        if page.more {
            self.reads_ahead = is_first;
            return self.fetch();
        }
        if self.until.is_some() {
            return self.hand_on();
        }
        if page.state == StreamState::Interrupted {
            // The client comes again, and is admitted anew.
            let is_draining = self.node.is_draining();
            return self.break_off(if is_draining { BodyError::Draining } else { BodyError::Interrupted });
        }
        self.state = Phase::Waiting;
        true
    }
}
