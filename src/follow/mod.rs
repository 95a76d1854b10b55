//! To follow a stream: replay from the log, then tail it live. Reads pages at the client's own pace,
//! and runs no code of the inner service.

mod answer;
mod replayer;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

pub use answer::{AnswerBody, AnswerFuture};
use bytes::Bytes;
use replayer::Replayer;
use tokio::time::Sleep;

use crate::{
    error::StoreError,
    hub::Core,
    id::{EventId, StreamId, StreamKey},
    layer::voice::{Notice, Speaker, Voice},
    protocol::{
        admission::Position,
        backoff::Backoff,
        replay::{Owed, Step},
    },
    pulse::Pulse,
    recorder::Reader,
    store::{Page, Tail, handle::BoxFuture},
    stream::StreamState,
    sync::WakerCell,
    telemetry::{Counted, add},
};

/// Entries and bytes that a page holds.
const PAGE_EVENTS: usize = 512;
const PAGE_BYTES: usize = 128 << 10;

/// What a consumer wants to follow, and how it is spoken to.
pub(crate) struct FollowRequest {
    pub(crate) key: StreamKey,
    pub(crate) position: Position,
    /// What a reader without a cursor is owed.
    pub(crate) owed: Owed,
    pub(crate) voice: Voice,
    /// Stands before every id where the library made up the stream's id.
    pub(crate) prefix: Option<StreamId>,
    /// For how long to wait for a stream that is not opened yet.
    pub(crate) wait: Option<Duration>,
    /// The run that the reader goes over to: it reads up to that run's start, and no further.
    pub(crate) until: Option<EventId>,
}

/// The body of a consumer that follows a stream.
pub(crate) struct FollowBody {
    state: Phase,
    core: Arc<Core>,
    key: StreamKey,
    replayer: Replayer,
    speaker: Speaker,
    until: Option<EventId>,
    greeted: bool,
    /// None for a body that reads what is there, and then goes over to a live run: it is no reader of that.
    following: Option<Following>,
    pulse: Pulse,
    backoff: Backoff,
    /// Until when a stream that is not opened yet is waited for.
    unopened: Option<Pin<Box<Sleep>>>,
}

enum Phase {
    /// A page is on its way.
    Fetching(BoxFuture<Result<Option<Page>, StoreError>>),
    /// All that is held was read.
    Waiting,
    /// The store failed.
    Pausing(Pin<Box<Sleep>>),
    /// The body is over; what was written last is still to be given.
    Over,
}

/// A follower of a stream: woken when that changes, and counted among its readers.
struct Following {
    tail: Tail,
    /// Its place, where the stream is produced on this node.
    reader: Option<Reader>,
    /// The newest run that it has heard of.
    epoch: u64,
    _counted: Counted,
}

impl Following {
    fn new(core: &Core, key: &StreamKey, at: Option<EventId>) -> Self {
        // Before the first page is asked for: what changes in between is then seen.
        let tail = core.store.tail(key);
        let reader = core.recorder.lane(key).map(|lane| Reader::enter(lane, at));
        let counted = Counted::new(&core.telemetry, |telemetry| &telemetry.followers);
        Self { tail, reader, epoch: 0, _counted: counted }
    }

    /// The stream's newest run is this one, which may be of another node than the one before.
    fn heard_of(&mut self, epoch: u64, core: &Core, key: &StreamKey, at: Option<EventId>) {
        if std::mem::replace(&mut self.epoch, epoch) != epoch && self.reader.as_ref().is_none_or(Reader::is_over) {
            self.reader = core.recorder.lane(key).map(|lane| Reader::enter(lane, at));
        }
    }
}

impl FollowBody {
    pub(crate) fn new(core: &Arc<Core>, request: FollowRequest) -> Self {
        let FollowRequest { key, position, owed, voice, prefix, wait, until } = request;
        let speaker = Speaker::new(Arc::clone(&core.framing), voice, prefix, Some(core.retry()));
        Self::speaking(core, Replayer::new(key, position, owed), speaker, wait, until)
    }

    /// Goes on for a body that has been speaking already.
    pub(crate) fn taking_over(core: &Arc<Core>, key: StreamKey, after: EventId, speaker: Speaker) -> Self {
        let mut body = Self::speaking(core, Replayer::new(key, Position::After(after), Owed::Run), speaker, None, None);
        body.greeted = true;
        body
    }

    fn speaking(
        core: &Arc<Core>,
        mut replayer: Replayer,
        speaker: Speaker,
        wait: Option<Duration>,
        until: Option<EventId>,
    ) -> Self {
        let key = replayer.key.clone();
        let following = until.is_none().then(|| Following::new(core, &key, replayer.place.at()));
        let fetch = replayer.fetch(&core.store);
        Self {
            state: Phase::Fetching(fetch),
            replayer,
            speaker,
            until,
            greeted: false,
            following,
            pulse: core.pulses.enter(Arc::new(WakerCell::default()), None),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
            unopened: wait.map(|wait| Box::pin(tokio::time::sleep(wait))),
            core: Arc::clone(core),
            key,
        }
    }

    /// What is given next, as one frame: `None` once the body is over.
    ///
    /// # Cancel safety
    ///
    /// Whatever is not given yet is read again by the next follower.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.pulse.polled();
        if !std::mem::replace(&mut self.greeted, true) {
            self.speaker.notice(&Notice::Connected(&self.key.id));
        }
        loop {
            if let Some(frame) = self.speaker.take() {
                self.pulse.spoke();
                return Poll::Ready(Some(frame));
            }
            let going_on = match &mut self.state {
                Phase::Over => return Poll::Ready(None),
                Phase::Fetching(fetch) => match fetch.as_mut().poll(cx) {
                    Poll::Ready(page) => self.take_page(page),
                    Poll::Pending => false,
                },
                Phase::Waiting => self.wait(cx),
                Phase::Pausing(pause) => pause.as_mut().poll(cx).is_ready() && self.fetch(),
            };
            if !going_on {
                return self.idle(cx);
            }
        }
    }

    /// Nothing to give now, but perhaps a heartbeat.
    fn idle(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.pulse.silent(cx.waker()) {
            return Poll::Pending;
        }
        self.speaker.heartbeat();
        self.pulse.beat();
        Poll::Ready(self.speaker.take())
    }

    /// The state machine's steps return whether there is more to do at once.
    fn fetch(&mut self) -> bool {
        self.state = Phase::Fetching(self.replayer.fetch(&self.core.store));
        true
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> bool {
        // First, so that a drain that begins now wakes the body.
        self.pulse.register(cx.waker());
        if self.core.is_draining() {
            // The client goes on elsewhere.
            return self.over();
        }
        if self.following.as_mut().is_some_and(|following| following.tail.poll_changed(cx).is_ready()) {
            return self.fetch();
        }
        let waited = self.unopened.as_mut().is_some_and(|unopened| unopened.as_mut().poll(cx).is_ready());
        waited && self.over()
    }

    fn over(&mut self) -> bool {
        self.speaker.retry_only();
        self.state = Phase::Over;
        true
    }

    fn take_page(&mut self, page: Result<Option<Page>, StoreError>) -> bool {
        match page {
            Err(error) => self.take_error(&error),
            Ok(None) if self.unopened.is_some() => {
                self.state = Phase::Waiting;
                true
            }
            Ok(None) => self.over(),
            Ok(Some(page)) => {
                self.backoff.succeeded();
                self.unopened = None;
                if let Some(following) = &mut self.following {
                    following.heard_of(page.epoch, &self.core, &self.key, self.replayer.place.at());
                }
                self.tell(&page)
            }
        }
    }

    /// The store is asked again, unless a new run waits for the reader: that goes before what was missed.
    fn take_error(&mut self, error: &StoreError) -> bool {
        if self.until.is_some() {
            self.replayer.place.unreadable();
            self.state = Phase::Over;
            return true;
        }
        crate::telemetry::log_debug!(error = %error, "a follower could not read");
        let pause = self.backoff.failed(crate::random::u128() as u64);
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
                self.state = Phase::Over;
                return true;
            }
            let Some(step) = self.replayer.take(record) else { continue };
            if !self.tell_step(step, record.run()) {
                return self.over();
            }
            match &record.kind {
                crate::stream::RecordKind::Event(block) => self.speaker.event(block, true, record.id),
                crate::stream::RecordKind::End(ended) => {
                    self.speaker.end(ended);
                    self.state = Phase::Over;
                    return true;
                }
                crate::stream::RecordKind::Run { .. } => {}
            }
        }
        self.go_on_after(page)
    }

    fn go_on_after(&mut self, page: &Page) -> bool {
        if let Some(reader) = self.following.as_ref().and_then(|following| following.reader.as_ref()) {
            let top = if page.more { None } else { Some(page.top) };
            reader.at(self.replayer.place.at().max(top));
        }
        if page.more {
            return self.fetch();
        }
        if self.until.is_some() {
            self.state = Phase::Over;
        } else if page.state == StreamState::Interrupted {
            // The client comes again, and is admitted anew.
            return self.over();
        } else {
            self.state = Phase::Waiting;
        }
        true
    }

    /// Tells of a gap and a restart. `false`: the voice has no word for it.
    fn tell_step(&mut self, step: Step, epoch: u64) -> bool {
        tell_step(&self.core, &mut self.speaker, step, epoch)
    }

    /// For a reader that goes over to a live run: what is left to be told, and who speaks on.
    pub(crate) fn hand_over(&mut self, run: EventId) -> Step {
        self.replayer.place.hand_over(run)
    }

    pub(crate) fn into_speaker(self) -> Speaker {
        self.speaker
    }
}

/// Tells of a gap and a restart. `false`: the voice has no word for it, and the body ends.
pub(crate) fn tell_step(core: &Core, speaker: &mut Speaker, step: Step, epoch: u64) -> bool {
    if let Some(gap) = step.gap {
        add(&core.telemetry.gaps, 1);
        if !speaker.notice(&Notice::Gap(gap)).goes_on() {
            return false;
        }
    }
    !step.restart || speaker.notice(&Notice::Restart(epoch)).goes_on()
}

impl FollowBody {
    /// Whether nothing more will be given.
    pub(crate) fn is_end_stream(&self) -> bool {
        matches!(self.state, Phase::Over) && self.speaker.len() == 0
    }
}

impl fmt::Debug for FollowBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowBody").field("key", &self.key).finish_non_exhaustive()
    }
}
