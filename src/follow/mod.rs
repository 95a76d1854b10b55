//! To follow a stream: replay from the log, then tail it live. Reads pages at the client's own pace,
//! and runs no code of the inner service.

mod answer;
pub(crate) mod ending;
mod replayer;

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

pub use answer::{AnswerBody, AnswerFuture};
use bytes::Bytes;
use ending::{Closing, End, finish};
use replayer::Replayer;
use tokio::time::Sleep;

use crate::{
    model::{
        error::{BodyError, StoreError},
        id::{EventId, StreamId, StreamKey},
        kept::KeptHeaders,
        stream::{Ended, Origin, RecordKind, StreamState},
        voice::Voice,
    },
    node::Node,
    protocol::{
        admission::Position,
        backoff::Backoff,
        replay::{Owed, Step},
    },
    recorder::Reader,
    route::speaker::{Notice, Speaker},
    runtime::{executor::BoxFuture, pulse::Pulse, sync::WakerCell},
    store::{Page, Tail},
    telemetry::{Counted, add},
    wire::frame::without_first,
};

/// Entries and bytes that a page holds.
const PAGE_EVENTS: usize = 512;
const PAGE_BYTES: usize = 128 << 10;

/// The manner in which a follower is answered, and let go in a drain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) voice: Voice,
    /// After how much silence it is sent a heartbeat.
    pub(crate) heartbeat: Duration,
    /// Whether its route never finishes: its clients expect a clean end.
    pub(crate) endless: bool,
    /// Whether it reconnects by itself when its body breaks, as an `EventSource` does.
    pub(crate) comes_again: bool,
}

/// The stream and position that a consumer follows, and the manner in which it is answered.
pub(crate) struct FollowRequest {
    pub(crate) key: StreamKey,
    pub(crate) position: Position,
    /// The events owed to a reader without a cursor.
    pub(crate) owed: Owed,
    pub(crate) manner: Manner,
    /// Stands before every id where the library made up the stream's id.
    pub(crate) prefix: Option<StreamId>,
    /// The reconnect delay that the inner service set, in milliseconds.
    pub(crate) retry: Option<u64>,
    /// For how long to wait for a stream that is not opened yet.
    pub(crate) wait: Option<Duration>,
    /// What is asked for once the store gives a page.
    pub(crate) unknown: Unknown,
    /// The run that the reader goes over to: it reads up to that run's start, and no further.
    pub(crate) until: Option<EventId>,
}

/// What is not known of a stream before the store has said what stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    Nothing,
    /// What the producer's response said: headers that are kept, and the inner service's reconnect delay.
    Response,
    /// The prefix of its ids and the inner service's reconnect delay.
    Stream,
    /// Its voice, too: until that is known the follower is greeted in the default one.
    StreamAndVoice,
}

/// The body of a consumer that follows a stream.
pub(crate) struct FollowBody {
    state: Phase,
    node: Arc<Node>,
    key: StreamKey,
    replayer: Replayer,
    speaker: Speaker,
    manner: Manner,
    until: Option<EventId>,
    handed_on: bool,
    /// The store did not answer the last request.
    failing: bool,
    greeted: bool,
    /// The first page was small, and the next one is asked for before the client has taken it.
    reads_ahead: bool,
    /// The headers of the producer's response, until this body's response has them.
    kept: Option<KeptHeaders>,
    /// How far the log was read, until the client was given all of that.
    read_up_to: Option<EventId>,
    /// None for a body that reads the missed events and then goes over to a live run.
    following: Option<Following>,
    pulse: Pulse,
    backoff: Backoff,
    /// How long to wait for a stream that is not opened yet, and the timer of that wait.
    unopened: Option<(Duration, Pin<Box<Sleep>>)>,
    unknown: Unknown,
    last_look: LastLook,
}

/// The look at the log that a drain grants before the body breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastLook {
    Due,
    UnderWay,
    Done,
}

enum Phase {
    /// A page is on its way.
    Fetching(BoxFuture<Result<Option<Page>, StoreError>>),
    /// All that is held was read.
    Waiting,
    /// The store failed.
    Pausing(Pin<Box<Sleep>>),
    /// The body is over; what was written last is still to be given.
    Over(Closing),
}

/// A follower of a stream: woken when that changes, and counted among its readers.
struct Following {
    tail: Tail,
    /// Its place, where the stream is produced on this node.
    reader: Option<Reader>,
    _counted: Counted,
}

impl Following {
    fn new(node: &Node, key: &StreamKey, at: Option<EventId>) -> Self {
        // Taken before the first page is asked for, so that no change in between is missed.
        let tail = node.store.tail(key);
        let reader = node.recorder.lane(key).map(|lane| Reader::enter(lane, at));
        let counted = Counted::new(&node.telemetry, |telemetry| &telemetry.followers);
        Self { tail, reader, _counted: counted }
    }

    /// Enters the run that is made on this node, where there is a newer one than before. With each page, since the store may
    /// say of a run before its lane is there.
    fn enter(&mut self, node: &Node, key: &StreamKey, at: Option<EventId>) {
        if self.reader.as_ref().is_none_or(Reader::is_over) {
            self.reader = node.recorder.lane(key).map(|lane| Reader::enter(lane, at));
        }
    }
}

impl FollowBody {
    pub(crate) fn new(node: &Arc<Node>, request: FollowRequest) -> Self {
        let FollowRequest { key, position, owed, manner, prefix, retry, wait, unknown, until } = request;
        let retry = retry.unwrap_or_else(|| node.retry());
        let speaker = Speaker::new(Arc::clone(&node.framing), manner.voice, prefix, Some(retry));
        let body = Self::speaking(node, Replayer::new(key, position, owed), manner, speaker, wait, until);
        Self { unknown, ..body }
    }

    /// Follows once the producing node knows of the reader, so that it does not take the stream for one that nobody reads.
    pub(crate) async fn announced(node: &Arc<Node>, request: FollowRequest) -> Self {
        let key = request.key.clone();
        let mut body = Self::new(node, request);
        body.begin().await;
        node.announce(&key).await;
        body
    }

    /// Asks for the first page: what else is asked of the store before the response's head is sent is asked at the same time.
    pub(crate) async fn begin(&mut self) {
        if !self.node.store.is_immediate() {
            poll_fn(|cx| {
                self.read_ahead(cx);
                Poll::Ready(())
            })
            .await;
        }
    }

    /// Waits for the first page, or until it is known that there is none. Returns the headers that are kept with the stream.
    pub(crate) async fn begun(&mut self) -> KeptHeaders {
        poll_fn(|cx| {
            if self.kept.is_none() {
                self.read_ahead(cx);
            }
            let waits = self.kept.is_none() && matches!(self.state, Phase::Fetching(_));
            if waits { Poll::Pending } else { Poll::Ready(self.kept.take().unwrap_or_default()) }
        })
        .await
    }

    /// Sees to it that the page which is wanted next is on its way.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        if let Phase::Fetching(fetch) = &mut self.state
            && let Poll::Ready(page) = fetch.as_mut().poll(cx)
        {
            self.greet();
            self.take_page(page);
        }
    }

    fn greet(&mut self) {
        if !std::mem::replace(&mut self.greeted, true) {
            self.speaker.notice(&Notice::Connected(&self.key.id));
        }
    }

    /// Goes on for a body that has been speaking already.
    pub(crate) fn taking_over(
        node: &Arc<Node>,
        key: StreamKey,
        after: EventId,
        manner: Manner,
        speaker: Speaker,
    ) -> Self {
        let replayer = Replayer::new(key, Position::After(after), Owed::Run);
        let mut body = Self::speaking(node, replayer, manner, speaker, None, None);
        body.greeted = true;
        body
    }

    fn speaking(
        node: &Arc<Node>,
        mut replayer: Replayer,
        manner: Manner,
        speaker: Speaker,
        wait: Option<Duration>,
        until: Option<EventId>,
    ) -> Self {
        let key = replayer.key.clone();
        let following = until.is_none().then(|| Following::new(node, &key, replayer.place.at()));
        let fetch = replayer.fetch(&node.store);
        Self {
            state: Phase::Fetching(fetch),
            replayer,
            speaker,
            manner,
            until,
            handed_on: false,
            failing: false,
            greeted: false,
            reads_ahead: false,
            kept: None,
            read_up_to: None,
            following,
            pulse: node.pulses.enter(Arc::new(WakerCell::default()), manner.heartbeat, None),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
            unopened: wait.map(|wait| (wait, Box::pin(tokio::time::sleep(wait)))),
            unknown: Unknown::Nothing,
            last_look: LastLook::Due,
            node: Arc::clone(node),
            key,
        }
    }

    /// The next frame: `None` once the body is over, an error where it breaks.
    ///
    /// # Cancel safety
    ///
    /// The next follower reads events again that were not given yet.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.pulse.polled();
        self.greet();
        loop {
            if std::mem::take(&mut self.reads_ahead) {
                self.read_ahead(cx);
            }
            if let Some(piece) = self.speaker.take_piece() {
                self.pulse.spoke();
                self.note_place(piece.up_to);
                return Poll::Ready(Some(Ok(piece.bytes)));
            }
            let read = self.read_up_to.take();
            self.note_place(read);
            let going_on = match &mut self.state {
                Phase::Over(closing) => return closing.poll(cx).map(|error| error.map(Err)),
                Phase::Fetching(fetch) => match fetch.as_mut().poll(cx) {
                    Poll::Ready(page) => self.take_page(page),
                    Poll::Pending => false,
                },
                Phase::Waiting => self.wait(cx),
                Phase::Pausing(pause) => pause.as_mut().poll(cx).is_ready() && self.fetch(),
            };
            if !going_on {
                let idle = self.idle(cx);
                // Once the waker is registered: a drain that begins now wakes the body.
                if idle.is_pending() && self.gives_up(cx) {
                    continue;
                }
                return idle;
            }
        }
    }

    /// The client was given everything up to here.
    fn note_place(&self, at: Option<EventId>) {
        if let (Some(_), Some(Following { reader: Some(reader), .. })) = (at, &self.following) {
            reader.at(at);
        }
    }

    /// Nothing to give now, but perhaps a heartbeat.
    fn idle(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.speaker.rest();
        if !self.pulse.silent(cx.waker()) {
            return Poll::Pending;
        }
        self.speaker.heartbeat();
        self.pulse.beat();
        Poll::Ready(self.speaker.take().map(Ok))
    }

    /// The state machine's steps return whether there is more to do at once.
    fn fetch(&mut self) -> bool {
        self.state = Phase::Fetching(self.replayer.fetch(&self.node.store));
        true
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_let_go() {
            return self.let_go();
        }
        let changed = |following: &mut Following| following.tail.poll_changed(cx).is_ready();
        self.following.as_mut().is_some_and(changed) && self.fetch()
    }

    /// Whether the body breaks off instead of waiting on.
    fn gives_up(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_let_go() {
            return self.let_go();
        }
        if self.is_reading() {
            return false;
        }
        let Some((waited, unopened)) = &mut self.unopened else { return false };
        let waited = *waited;
        unopened.as_mut().poll(cx).is_ready() && self.break_off(BodyError::NotOpened { waited })
    }

    /// Whether the process shuts down and the client is to go on elsewhere: at once where it reconnects by itself, else
    /// when the time is nearly over. The follower of a stream of this node waits for its end. A page that is on its way is
    /// waited for, unless the store fails.
    fn is_let_go(&self) -> bool {
        let node = &self.node;
        let looks = self.last_look == LastLook::UnderWay && self.is_reading();
        if !node.is_draining() || node.is_down() {
            return node.is_down() && !looks;
        }
        let is_elsewhere = || node.is_letting_go() && node.recorder.lane(&self.key).is_none();
        !self.is_reading() && (self.manner.comes_again || is_elsewhere())
    }

    /// Breaks off, unless the log holds the stream's end. The lane of a stream leaves this node because its end is stored, and the
    /// process may be down before the follower is polled again: so the log is looked at once more, whatever the body was at.
    fn let_go(&mut self) -> bool {
        if self.manner.comes_again || self.last_look != LastLook::Due {
            return self.break_off(BodyError::Draining);
        }
        self.last_look = LastLook::UnderWay;
        self.failing = false;
        self.fetch()
    }

    /// Whether a page is on its way from a store that answers.
    fn is_reading(&self) -> bool {
        matches!(self.state, Phase::Fetching(_)) && !self.failing
    }

    /// The body ends before the stream has.
    fn break_off(&mut self, error: BodyError) -> bool {
        self.end(End::Unfinished(error))
    }

    fn end(&mut self, end: End) -> bool {
        self.state = Phase::Over(finish(&mut self.speaker, end, self.manner.endless));
        true
    }

    /// There is nothing more to give.
    fn finish_cleanly(&mut self) -> bool {
        self.state = Phase::Over(Closing::clean());
        true
    }

    /// The reader goes over to a run that it follows live.
    fn hand_on(&mut self) -> bool {
        self.handed_on = true;
        self.finish_cleanly()
    }

    /// Whether the reader has all missed events, and goes over to the live run.
    pub(crate) fn is_handed_on(&self) -> bool {
        self.handed_on
    }

    fn take_page(&mut self, page: Result<Option<Page>, StoreError>) -> bool {
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
                return self.speaker.learn_retry(page.inner_retry);
            }
            Unknown::Stream => {}
            Unknown::StreamAndVoice => self.manner.voice = page.voice,
        }
        let prefix = (page.origin == Origin::Generated).then(|| self.key.id.clone());
        self.speaker.learn(prefix, page.inner_retry, self.manner.voice);
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
        crate::telemetry::log_debug!(error = %error, "a follower could not read");
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

    /// For a reader that goes over to a live run: what is left to be told, and who speaks on.
    pub(crate) fn hand_over(&mut self, run: EventId) -> Step {
        self.replayer.place.hand_over(run)
    }

    pub(crate) fn into_speaker(self) -> Speaker {
        self.speaker
    }
}

/// Tells of a gap and a restart.
///
/// # Errors
///
/// [`BodyError`] where the voice cannot express it: the body breaks there.
pub(crate) fn tell_step(node: &Node, speaker: &mut Speaker, step: Step, epoch: u64) -> Result<(), BodyError> {
    if let Some(gap) = step.gap {
        add(&node.telemetry.gaps, 1);
        if !speaker.notice(&Notice::Gap(gap)) {
            return Err(BodyError::Gap);
        }
    }
    if step.restart && !speaker.notice(&Notice::Restart(epoch)) {
        return Err(BodyError::Restart);
    }
    Ok(())
}

impl FollowBody {
    /// Whether nothing more will be given.
    pub(crate) fn is_end_stream(&self) -> bool {
        matches!(&self.state, Phase::Over(closing) if closing.is_over()) && self.speaker.is_empty()
    }
}

impl fmt::Debug for FollowBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowBody").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::{MemoryStore, Owner, ResilientSse, StreamSpec};

    /// The store may say of a run before its lane is there.
    #[tokio::test(start_paused = true)]
    async fn g8_a_reader_that_comes_before_its_producer_is_counted_once_that_is_there() {
        let (sse, _guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build().expect("valid");
        let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").expect("valid"));
        let mut following = Following::new(&sse.0, &key, None);
        following.enter(&sse.0, &key, None);
        assert!(following.reader.is_none());
        let _job = sse.publisher().open(StreamSpec::new(key.owner.clone(), key.id.clone())).await.expect("new");
        following.enter(&sse.0, &key, None);
        assert_eq!(sse.0.recorder.lane(&key).expect("it runs").readers.followers(), 1);
        following.enter(&sse.0, &key, None);
        assert_eq!(sse.0.recorder.lane(&key).expect("it runs").readers.followers(), 1, "once");
    }
}
