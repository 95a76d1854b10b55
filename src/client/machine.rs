//! The state machine of an event source: one stream, over all of its attempts.

use std::{
    collections::VecDeque,
    future::Future as _,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use tokio::time::{Sleep, sleep};

use super::{
    Connected, Cut, CutCause, Ended, GaveUp, State, Update,
    connect::{Body, Boxed, Connect, Target},
    policy::{Policy, Verdict},
    reader::Reader,
    refusal::Refusal,
    retry_after::retry_after,
    timers::{Limit, Watchdog},
};
use crate::{
    runtime::random::Seeded,
    wire::{Framing as _, Parsed, Parser, Sse, TooLarge},
};

/// How many frames one poll may read without yielding an update. Then the source yields to other tasks, since a body
/// that is always ready would starve them.
const FRAMES_A_POLL: usize = 64;

pub(super) struct Machine {
    connect: Box<dyn Connect>,
    target: Target,
    /// Whether the request is a GET. Only a GET is repeated after a clean end of a response whose events had no ids.
    is_get: bool,
    response_timeout: Option<Duration>,
    policy: Policy,
    random: Seeded,
    parser: Parser,
    reader: Reader,
    /// Updates that were read but not yet yielded.
    updates: VecDeque<Update>,
    /// The id of the last event that was yielded.
    last_event_id: String,
    stage: Stage,
}

/// The settings from which the builder makes a machine.
pub(super) struct Setup {
    pub(super) connect: Box<dyn Connect>,
    pub(super) recovers: bool,
    pub(super) is_get: bool,
    pub(super) policy: Policy,
    pub(super) reader: Reader,
    pub(super) last_event_id: String,
    pub(super) max_event_bytes: usize,
    pub(super) response_timeout: Option<Duration>,
}

/// The states of the machine.
enum Stage {
    /// The next poll begins an attempt.
    Idle,
    Connecting(Boxed<Result<Response<Body>, CutCause>>, Limit),
    Reading(Reading),
    Refused(Refusal),
    Waiting(Pin<Box<Sleep>>),
    Over(State),
}

struct Reading {
    body: Body,
    watchdog: Watchdog,
    /// The error about an event that is too large. The events before it are yielded first.
    too_large: Option<TooLarge>,
}

impl Machine {
    pub(super) fn new(setup: Setup) -> Self {
        let parser = Parser::new(setup.max_event_bytes).with_last_event_id(&*setup.last_event_id);
        Self {
            connect: setup.connect,
            target: if setup.recovers { Target::Recovery } else { Target::Stream },
            is_get: setup.is_get,
            response_timeout: setup.response_timeout,
            policy: setup.policy,
            random: Seeded::new(None),
            parser,
            reader: setup.reader,
            updates: VecDeque::new(),
            last_event_id: setup.last_event_id,
            stage: Stage::Idle,
        }
    }

    pub(super) fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// Returns how many attempts in a row brought no event.
    pub(super) fn failures(&self) -> u32 {
        self.policy.failures()
    }

    pub(super) fn state(&self) -> State {
        match &self.stage {
            Stage::Idle | Stage::Connecting(..) | Stage::Refused(_) => State::Connecting,
            Stage::Reading(_) => State::Open,
            Stage::Waiting(_) => State::Waiting,
            Stage::Over(state) => *state,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(_))
    }

    pub(super) fn close(&mut self) {
        self.updates.clear();
        if !self.is_over() {
            self.stage = Stage::Over(State::Closed);
        }
    }

    pub(super) fn reconnect(&mut self) {
        match self.stage {
            Stage::Waiting(_) => self.stage = Stage::Idle,
            Stage::Over(State::GaveUp) => {
                self.policy.start_over();
                self.stage = Stage::Idle;
            }
            _ => {}
        }
    }

    /// Polls for the next update. Returns `None` once the stream has ended, the source gave up, or its owner closed it.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Update, GaveUp>>> {
        for _ in 0..FRAMES_A_POLL {
            if self.is_over() {
                return Poll::Ready(None);
            }
            if let Some(update) = self.next_update() {
                return Poll::Ready(Some(Ok(update)));
            }
            if let Err(gave_up) = ready!(self.poll_step(cx)) {
                self.leave_response();
                self.stage = Stage::Over(State::GaveUp);
                return Poll::Ready(Some(Err(gave_up)));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes the next update from what was read already.
    fn next_update(&mut self) -> Option<Update> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                self.note(&update);
                return Some(update);
            }
            match self.parser.pop()? {
                Parsed::Message(message) => self.reader.read(message, &mut self.updates),
                Parsed::Comment(_) => {}
            }
        }
    }

    /// Records an update that is about to be yielded: its event id, the progress it means, and the end of the stream.
    fn note(&mut self, update: &Update) {
        let message = match update {
            Update::Event(message) => Some(message),
            Update::Ended(ended) => {
                self.stage = Stage::Over(State::Ended);
                ended.event.as_ref()
            }
            _ => None,
        };
        if let Some(message) = message {
            self.policy.progressed();
            self.last_event_id.clone_from(&message.last_event_id);
        }
    }

    fn begin(&mut self) -> Result<(), GaveUp> {
        let cursor = match &*self.last_event_id {
            "" => None,
            id => Some(HeaderValue::from_bytes(id.as_bytes()).map_err(|_| GaveUp::Cursor { id: id.to_owned() })?),
        };
        let attempt = self.connect.connect(self.target, cursor);
        self.stage = Stage::Connecting(attempt, Limit::of(self.response_timeout));
        Ok(())
    }

    fn respond(&mut self, response: Response<Body>) -> Result<(), GaveUp> {
        let (head, body) = response.into_parts();
        match Verdict::of(head.status) {
            Verdict::Read => {
                let content_type = head.headers.get(header::CONTENT_TYPE);
                let text = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()));
                if !text.as_ref().is_some_and(|text| Sse.claims(text)) {
                    return Err(GaveUp::NoEventStream { content_type: text.map(Into::into) });
                }
                // Once recovery has sent events, every later attempt asks the stream itself.
                self.target = Target::Stream;
                let watchdog = Watchdog::new(self.policy.silence(&head.headers));
                self.stage = Stage::Reading(Reading { body, watchdog, too_large: None });
                self.updates.push_back(Update::Connected(Connected { headers: head.headers }));
                Ok(())
            }
            Verdict::Done => {
                self.updates.push_back(Update::Ended(Ended::default()));
                Ok(())
            }
            Verdict::Retry => {
                let asked = retry_after(&head.headers, SystemTime::now());
                self.cut(CutCause::Status(head.status), asked)
            }
            Verdict::Refuse if self.target == Target::Recovery && head.status == StatusCode::NOT_FOUND => {
                self.target = Target::Stream;
                self.stage = Stage::Idle;
                Ok(())
            }
            Verdict::Refuse => {
                self.stage = Stage::Refused(Refusal::new(head, body));
                Ok(())
            }
        }
    }

    /// Reads one frame, or notices that the response has ended, failed or gone silent.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GaveUp>> {
        let Stage::Reading(reading) = &mut self.stage else { return Poll::Ready(Ok(())) };
        if let Some(too_large) = reading.too_large {
            return Poll::Ready(Err(GaveUp::EventTooLarge(too_large)));
        }
        let cause = match Pin::new(&mut reading.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                reading.watchdog.note_frame();
                if let Ok(data) = frame.into_data() {
                    reading.too_large = self.parser.push(&data).err();
                }
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Some(Err(error))) => CutCause::Body(error),
            Poll::Ready(None) => CutCause::EndedEarly,
            Poll::Pending => CutCause::Silent { waited: ready!(reading.watchdog.poll_silence(cx)) },
        };
        self.leave_response();
        if matches!(cause, CutCause::EndedEarly) && !self.is_get && self.last_event_id.is_empty() {
            // Without an id the request cannot resume this response: a repeated POST would run the work again.
            self.updates.push_back(Update::Ended(Ended::default()));
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.cut(cause, None))
    }

    /// Prepares the parser and the cursor for the next response. All updates of the last response were yielded.
    fn leave_response(&mut self) {
        if self.reader.take_void_cursor() {
            let parser = mem::replace(&mut self.parser, Parser::new(0));
            self.parser = parser.with_last_event_id("");
        }
        // A block without data sets the id but yields no event, so `note` has not seen that id.
        self.parser.last_event_id().clone_into(&mut self.last_event_id);
        self.parser.reconnect();
    }

    /// Ends an attempt whose stream has not ended: plans the next attempt, or gives up after too many. `asked` is the
    /// wait that the server asked for in `Retry-After`.
    fn cut(&mut self, cause: CutCause, asked: Option<Duration>) -> Result<(), GaveUp> {
        let reason = self.reader.take_breaks();
        let asked = asked.max(self.parser.reconnection_time().map(Duration::from_millis));
        let Some(retry_in) = self.policy.failed(asked, self.random.u64()) else {
            return Err(GaveUp::Attempts { attempts: self.policy.failures(), last: cause });
        };
        self.updates.push_back(Update::Cut(Cut { cause, reason, attempts: self.policy.failures(), retry_in }));
        self.stage = Stage::Waiting(Box::pin(sleep(retry_in)));
        Ok(())
    }

    /// Drives the current stage by one step.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GaveUp>> {
        match &mut self.stage {
            Stage::Idle => Poll::Ready(self.begin()),
            Stage::Connecting(response, limit) => {
                let response = match response.as_mut().poll(cx) {
                    Poll::Ready(response) => response,
                    Poll::Pending => Err(CutCause::NoResponse { waited: ready!(limit.poll(cx)) }),
                };
                Poll::Ready(match response {
                    Ok(response) => self.respond(response),
                    Err(cause) => self.cut(cause, None),
                })
            }
            Stage::Reading(_) => self.poll_read(cx),
            Stage::Refused(refusal) => Poll::Ready(Err(ready!(refusal.poll(cx)))),
            Stage::Waiting(sleep) => {
                ready!(sleep.as_mut().poll(cx));
                self.stage = Stage::Idle;
                Poll::Ready(Ok(()))
            }
            Stage::Over(_) => Poll::Ready(Ok(())),
        }
    }
}
