//! The body of a consumer that follows a stream: it gives pages of the log at the client's pace, then live events.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Sleep;

use super::{
    closing::{Closing, End, finish},
    following::Following,
    replayer::Replayer,
    request::{FollowRequest, Manner, Unknown},
};
use crate::{
    model::{
        error::{BodyError, StoreError},
        id::{EventId, StreamKey},
        kept::KeptHeaders,
    },
    node::Node,
    protocol::{
        admission::Position,
        backoff::Backoff,
        replay::{Owed, Step},
    },
    route::speaker::{Notice, Speaker},
    runtime::{executor::BoxFuture, pulse::Pulse, sync::WakerCell},
    store::Page,
};

/// The body of a consumer that follows a stream.
pub(crate) struct FollowBody {
    pub(super) state: Phase,
    pub(super) node: Arc<Node>,
    pub(super) key: StreamKey,
    pub(super) replayer: Replayer,
    pub(super) speaker: Speaker,
    pub(super) manner: Manner,
    pub(super) until: Option<EventId>,
    handed_on: bool,
    /// Whether the last request to the store failed.
    pub(super) failing: bool,
    greeted: bool,
    /// Whether to request the next page before the client has taken this one, since the first page is small.
    pub(super) reads_ahead: bool,
    /// The headers of the producer's response, until this body's response has them.
    pub(super) kept: Option<KeptHeaders>,
    /// The end of the last page, until the client was given all of that page.
    pub(super) read_up_to: Option<EventId>,
    /// `None` for a body that reads the missed events and then switches to a live run.
    pub(super) following: Option<Following>,
    pulse: Pulse,
    pub(super) backoff: Backoff,
    /// How long to wait for a stream that is not opened yet, and the timer of that wait.
    pub(super) unopened: Option<(Duration, Pin<Box<Sleep>>)>,
    pub(super) unknown: Unknown,
    pub(super) last_read: LastRead,
}

/// The state of the last read of the log in a drain, before the body breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastRead {
    Due,
    UnderWay,
    Done,
}

pub(super) enum Phase {
    /// A page was requested.
    Fetching(BoxFuture<Result<Option<Page>, StoreError>>),
    /// The log was read to its end. The body waits for a change of the stream.
    Waiting,
    /// The store failed. The body waits before it asks again.
    Pausing(Pin<Box<Sleep>>),
    /// The last bytes are written. The body ends once the client has taken them.
    Over(Closing),
}

impl FollowBody {
    pub(crate) fn new(node: &Arc<Node>, request: FollowRequest) -> Self {
        let FollowRequest { key, position, owed, manner, prefix, retry, wait, unknown, until } = request;
        let retry = retry.unwrap_or_else(|| node.retry());
        let speaker = Speaker::new(Arc::clone(&node.framing), manner.voice, prefix, Some(retry));
        let body = Self::speaking(node, Replayer::new(key, position, owed), manner, speaker, wait, until);
        Self { unknown, ..body }
    }

    /// Makes a body, and announces the reader to the producing node, so that the node does not end the stream as
    /// unread.
    pub(crate) async fn announced(node: &Arc<Node>, request: FollowRequest) -> Self {
        let key = request.key.clone();
        let mut body = Self::new(node, request);
        body.begin().await;
        node.announce(&key).await;
        body
    }

    /// Requests the first page, so that the store reads it while it answers the other requests that precede the
    /// response's head.
    pub(crate) async fn begin(&mut self) {
        if !self.node.store.is_immediate() {
            poll_fn(|cx| {
                self.read_ahead(cx);
                Poll::Ready(())
            })
            .await;
        }
    }

    /// Waits for the first answer of the store. Returns the stream's kept headers.
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

    /// Polls the request for the next page, and takes the page if it has come.
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

    /// Makes a body that continues another body of the same response, after the event `after`.
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
            last_read: LastRead::Due,
            node: Arc::clone(node),
            key,
        }
    }

    /// Returns the next bytes, `None` after the end of the body, or the error with which the body breaks.
    ///
    /// # Cancel safety
    ///
    /// The body may be dropped at any point. The client's next request reads the events from the log that this body has
    /// not given.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.pulse.polled();
        self.greet();
        loop {
            if std::mem::take(&mut self.reads_ahead) {
                self.read_ahead(cx);
            }
            if let Some(piece) = self.speaker.take_piece() {
                self.pulse.delivered();
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
                // Checked after `idle` has registered the waker, so that a drain that begins now wakes the body.
                if idle.is_pending() && self.gives_up(cx) {
                    continue;
                }
                return idle;
            }
        }
    }

    /// Notes that the client was given everything up to the event `at`.
    fn note_place(&self, at: Option<EventId>) {
        if let (Some(_), Some(Following { reader: Some(reader), .. })) = (at, &self.following) {
            reader.at(at);
        }
    }

    /// Gives a heartbeat if one is due, since there is nothing else to give.
    fn idle(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.speaker.shrink();
        if !self.pulse.silent(cx.waker()) {
            return Poll::Pending;
        }
        self.speaker.heartbeat();
        self.pulse.beat();
        Poll::Ready(self.speaker.take().map(Ok))
    }

    /// Requests the next page. This and the other steps of the state machine return whether there is more to do at
    /// once.
    pub(super) fn fetch(&mut self) -> bool {
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

    /// Breaks the body off, or begins its last read, if it should not wait any longer. Returns whether it did.
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

    /// Whether the process shuts down and this client should continue on another node.
    ///
    /// A client that reconnects by itself is let go at once, any other when the drain's time is nearly over. A follower
    /// of a stream of this node stays until the stream ends. The body first waits for a requested page, unless the
    /// store fails.
    fn is_let_go(&self) -> bool {
        let node = &self.node;
        let reads_last = self.last_read == LastRead::UnderWay && self.is_reading();
        if !node.is_draining() || node.is_down() {
            return node.is_down() && !reads_last;
        }
        let is_elsewhere = || node.is_letting_go() && node.recorder.lane(&self.key).is_none();
        !self.is_reading() && (self.manner.comes_again || is_elsewhere())
    }

    /// Breaks off, after a last read of the log that may find the stream's end.
    ///
    /// The last read is needed because a stream's lane leaves this node when its end is stored, and the process may be
    /// down before the follower is polled again.
    fn let_go(&mut self) -> bool {
        if self.manner.comes_again || self.last_read != LastRead::Due {
            return self.break_off(BodyError::Draining);
        }
        self.last_read = LastRead::UnderWay;
        self.failing = false;
        self.fetch()
    }

    /// Whether a page was requested and the store's last answer was no error.
    fn is_reading(&self) -> bool {
        matches!(self.state, Phase::Fetching(_)) && !self.failing
    }

    /// Ends the body with an error, before the stream has ended.
    pub(super) fn break_off(&mut self, error: BodyError) -> bool {
        self.end(End::Unfinished(error))
    }

    pub(super) fn end(&mut self, end: End) -> bool {
        self.state = Phase::Over(finish(&mut self.speaker, end, self.manner.endless));
        true
    }

    /// Ends the body cleanly.
    pub(super) fn finish_cleanly(&mut self) -> bool {
        self.state = Phase::Over(Closing::clean());
        true
    }

    /// Ends this body, so that the reader switches to a live run.
    pub(super) fn hand_on(&mut self) -> bool {
        self.handed_on = true;
        self.finish_cleanly()
    }

    /// Whether the client has all missed events, so that it switches to the live run.
    pub(crate) fn is_handed_on(&self) -> bool {
        self.handed_on
    }

    /// Returns the gap and restart to report before the live run `run` begins.
    pub(crate) fn hand_over(&mut self, run: EventId) -> Step {
        self.replayer.place.hand_over(run)
    }

    pub(crate) fn into_speaker(self) -> Speaker {
        self.speaker
    }
}

impl FollowBody {
    /// Whether the body has given everything.
    pub(crate) fn is_end_stream(&self) -> bool {
        matches!(&self.state, Phase::Over(closing) if closing.is_over()) && self.speaker.is_empty()
    }
}

impl fmt::Debug for FollowBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowBody").field("key", &self.key).finish_non_exhaustive()
    }
}
