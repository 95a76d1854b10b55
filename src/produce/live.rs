//! The body of the client whose request runs the inner service. It polls the inner body and delivers the recorded
//! events.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::{
    engine::{FEW, Made, Progress},
    producer::Producer,
};
use crate::{
    follow::{
        FollowBody, Manner,
        closing::{Closing, End, finish},
    },
    model::{config::BATCH_BYTES, error::BodyError, id::EventId},
    produce::inner_body::InnerBody,
    recorder::{EndRequest, Lane, Status},
    route::speaker::Speaker,
    runtime::{pulse::Pulse, sync::Entered},
};

/// How many events an inner body that is always ready makes before its task yields. With large events the client's
/// socket is full sooner.
const TURN: u64 = 2048;

/// The next step of a live body.
pub(crate) enum Next<B>
where
    B: InnerBody,
{
    Frame(Bytes),
    /// The client follows the log from here: a task drives the work on, or the stream ended elsewhere.
    Follow(Box<FollowBody>, Attached<B>),
    /// Every frame was given, and the body ends like this.
    Over(Closing),
}

/// The body of a client that is attached to the producer.
pub(crate) struct Live<B>
where
    B: InnerBody,
{
    pub(super) producer: Arc<Producer<B>>,
    /// Handed to the body that follows the log, if a task takes the work over.
    attached: Option<Attached<B>>,
    speaker: Speaker,
    manner: Manner,
    pub(super) pulse: Pulse,
    /// Events and lines that were made and not delivered yet, for example because the store has not acknowledged them.
    pub(super) made: VecDeque<Made>,
    /// How many events were made since the body last waited.
    turn: u64,
    delivered: EventId,
    /// The end of the inner body, once it has ended.
    pub(super) end: Option<EndRequest>,
    /// The timer while the body waits for the store.
    pub(super) wait: Option<Pin<Box<Sleep>>>,
    /// Whether a wait for the store has failed since the inner body was last pending. An end that comes now may have
    /// been made before that wait, so the wait counts towards the end's time limit.
    pub(super) held_up: bool,
    /// When the silence began: at the last event, or at the request's arrival before the first event.
    silent_since: Option<Instant>,
    /// Whether the inner body has made an event.
    has_event: bool,
    /// The end of the body, once its last bytes are written.
    closing: Option<Box<Closing>>,
    /// Makes a drain wait for this client although no lane stands for its stream.
    beyond_record: Option<Entered>,
}

/// A guard that tells the producer when it is dropped, because the client has left.
pub(crate) struct Attached<B>(Arc<Producer<B>>)
where
    B: InnerBody;

impl<B> Drop for Attached<B>
where
    B: InnerBody,
{
    fn drop(&mut self) {
        self.0.client_gone();
    }
}

impl<B> Live<B>
where
    B: InnerBody,
{
    pub(crate) fn new(producer: Arc<Producer<B>>, speaker: Speaker, manner: Manner, opened: Instant) -> Self {
        let (node, lane) = (Arc::clone(&producer.node), Arc::clone(&producer.lane));
        let unrecorded = lane.is_unrecorded();
        lane.readers.attach_client();
        let pulse = node.pulses.enter(Arc::clone(&lane.waker), manner.heartbeat, Some(producer.clone()));
        Self {
            delivered: EventId::new(lane.epoch, 0),
            attached: Some(Attached(Arc::clone(&producer))),
            producer,
            speaker,
            manner,
            pulse,
            made: VecDeque::new(),
            turn: 0,
            end: None,
            wait: None,
            held_up: false,
            silent_since: Some(opened),
            has_event: false,
            closing: None,
            beyond_record: (unrecorded && !manner.endless && !manner.comes_again).then(|| node.beyond_record.enter()),
        }
    }

    pub(crate) fn speaker(&mut self) -> &mut Speaker {
        &mut self.speaker
    }

    pub(crate) fn set_speaker(&mut self, speaker: Speaker) {
        self.speaker = speaker;
    }

    /// Notes that the client polls a replay that precedes this body.
    pub(crate) fn note_replay_polled(&self) {
        self.pulse.polled();
    }

    /// Notes that the client got bytes of a replay that precedes this body.
    pub(crate) fn note_replay_given(&self) {
        self.pulse.delivered();
    }

    /// Returns the next step of the body.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<B>> {
        self.pulse.polled();
        loop {
            self.deliver();
            if let Some(frame) = self.speaker.take() {
                self.pulse.delivered();
                return Poll::Ready(Next::Frame(frame));
            }
            if let Some(closing) = self.closing.take() {
                return Poll::Ready(Next::Over(*closing));
            }
            let going_on = if !self.made.is_empty() {
                self.wait_for_store(cx)
            } else if self.end.is_some() {
                self.wait_for_end(cx)
            } else {
                match self.produce(cx) {
                    Produced::GoOn(going_on) => going_on,
                    Produced::Follow => match self.follow() {
                        Some(next) => return Poll::Ready(next),
                        None => true,
                    },
                }
            };
            if !going_on {
                return self.idle(cx);
            }
        }
    }

    /// Writes the events that may be delivered, up to one batch.
    fn deliver(&mut self) {
        if self.made.is_empty() {
            return;
        }
        let limit = self.deliverable();
        let (mut count, mut bytes) = (0, 0);
        for made in &self.made {
            if made.seq() > limit || bytes >= BATCH_BYTES {
                break;
            }
            count += 1;
            bytes += made.len();
        }
        if count > 0 {
            // The next event to wait for the store gets a time limit of its own.
            self.stop_waiting();
        }
        for made in self.made.drain(..count) {
            match made {
                Made::Events(frame, last) => {
                    self.delivered = EventId::new(self.delivered.epoch, last);
                    self.speaker.frame(frame.bytes, self.delivered);
                }
                Made::Aside(lines) => self.speaker.aside(&lines),
            }
        }
        self.lane().readers.client_at(self.delivered.seq);
    }

    pub(super) fn deliverable(&self) -> u64 {
        if self.producer.node.store.is_broken(&self.lane().key) {
            self.lane().pass_by();
            return u64::MAX;
        }
        self.lane().deliverable(self.producer.route.durability)
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.producer.lane
    }

    /// Gives a heartbeat if one is due, since there is nothing else to give.
    fn idle(&mut self, cx: &mut Context<'_>) -> Poll<Next<B>> {
        self.turn = 0;
        if self.made.is_empty() && self.made.capacity() > FEW {
            self.made = VecDeque::new();
        }
        self.speaker.shrink();
        if !self.pulse.silent(cx.waker()) {
            return Poll::Pending;
        }
        self.speaker.heartbeat();
        self.pulse.beat();
        self.speaker.take().map_or(Poll::Pending, |frame| Poll::Ready(Next::Frame(frame)))
    }

    /// Polls the inner body for a batch of events. Returns `None` if a task drives it now.
    pub(super) fn make(&mut self, cx: &mut Context<'_>) -> Option<Progress> {
        let before = self.made.len();
        let progress = self.producer.make(cx, &mut self.made);
        if matches!(progress, Some(Progress::Made)) {
            self.turn += self.made.range(before..).map(Made::events).sum::<u64>().max(1);
        }
        progress
    }

    pub(super) fn finish(&mut self, end: End) {
        self.beyond_record = None;
        self.closing = Some(Box::new(finish(&mut self.speaker, end, self.manner.endless)));
    }

    /// Ends the body before its stream has ended, with the error that fits the reason.
    pub(super) fn finish_unfinished(&mut self) {
        let error = match &self.end {
            _ if self.producer.node.is_draining() => BodyError::Draining,
            Some(EndRequest::Interrupt) => BodyError::Interrupted,
            _ => BodyError::Superseded,
        };
        self.finish(End::Unfinished(error));
    }

    /// Breaks the body off after the bytes that are written already.
    pub(crate) fn break_off(mut self, error: BodyError) -> (Option<Bytes>, Closing) {
        self.finish(End::Unfinished(error));
        (self.speaker.take(), self.closing.take().map_or_else(Closing::clean, |closing| *closing))
    }

    /// Polls the inner body for events.
    fn produce(&mut self, cx: &mut Context<'_>) -> Produced {
        if self.turn >= TURN {
            // Yield, so that other tasks run and the transport sends what is written.
            cx.waker().wake_by_ref();
            return Produced::GoOn(false);
        }
        // Read before `is_driven`: if a task took the work over and then ended the stream, `is_driven` is true below.
        // The client then gets the events that the task made from the log, before the end.
        let halted = self.lane().is_halted();
        if self.producer.is_driven() {
            if !self.producer.is_released() {
                return Produced::Follow;
            }
            self.finish(End::Unfinished(BodyError::Draining));
            return Produced::GoOn(true);
        }
        if self.is_let_go() {
            self.producer.discard();
            self.finish(End::Unfinished(BodyError::Draining));
            return Produced::GoOn(true);
        }
        if halted && self.is_cut_off() {
            self.producer.discard();
            return Produced::Follow;
        }
        if halted && !self.go_on_halted() {
            return Produced::GoOn(true);
        }
        match self.make(cx) {
            None if self.producer.is_driven() => Produced::GoOn(true),
            None => {
                match self.lane().requested_end() {
                    // A drain or a stop has ended the work. The client gets that end like one of the inner body's own.
                    Some(end) => self.end = Some(end),
                    None if self.go_on_halted() => self.finish_unfinished(),
                    None => {}
                }
                Produced::GoOn(true)
            }
            Some(Progress::Made) => {
                self.note_event();
                Produced::GoOn(true)
            }
            Some(Progress::Over(end)) => {
                self.end = Some(end);
                Produced::GoOn(true)
            }
            Some(Progress::Waiting) => {
                self.held_up = false;
                self.silent_since.get_or_insert_with(Instant::now);
                // Checked after the waker is registered, so that no halt or takeover in between is missed.
                self.pulse.register(cx.waker());
                let halted = self.lane().is_halted() && !self.producer.node.serves_on(&self.lane().status());
                Produced::GoOn(halted || self.producer.is_taken_over() || self.is_let_go())
            }
        }
    }

    /// Whether the stream was ended from elsewhere after events that the client was not given. The log holds these
    /// events, or shows that they are missing.
    pub(super) fn is_cut_off(&self) -> bool {
        let lane = self.lane();
        match lane.status() {
            Status::Ended(ended) => {
                let behind = ended.last.epoch == lane.epoch && ended.last > self.delivered;
                behind && !lane.is_unrecorded() && !self.producer.node.serves_on(&Status::Ended(ended))
            }
            Status::Running | Status::Superseded => false,
        }
    }

    /// Handles a stream that ended elsewhere or has another producer. Returns whether this body still serves its
    /// client.
    fn go_on_halted(&mut self) -> bool {
        let status = self.lane().status();
        if self.producer.node.serves_on(&status) {
            if status != Status::Running {
                self.beyond_record.get_or_insert_with(|| self.producer.node.beyond_record.enter());
            }
            return true;
        }
        self.producer.discard();
        match status {
            Status::Ended(ended) => self.finish(End::of(*ended)),
            Status::Running | Status::Superseded => self.finish_unfinished(),
        }
        false
    }

    /// Whether the process shuts down and this body must break off by itself, because its stream is not recorded.
    fn is_let_go(&self) -> bool {
        let goes_at_once = self.manner.endless || self.manner.comes_again;
        self.lane().is_unrecorded()
            && self.producer.node.is_draining()
            && (goes_at_once || self.producer.node.is_letting_go())
    }

    /// Reports the time until this event to the telemetry.
    fn note_event(&mut self) {
        let Some(since) = self.silent_since.take() else { return };
        if std::mem::replace(&mut self.has_event, true) {
            self.producer.node.telemetry.event_gap(since.elapsed());
        } else {
            self.producer.node.telemetry.first_event(since.elapsed());
        }
    }

    /// Returns the step to a body that follows the log, which holds the events that were not delivered.
    fn follow(&mut self) -> Option<Next<B>> {
        let attached = self.attached.take()?;
        let key = self.lane().key.clone();
        let follow =
            FollowBody::taking_over(&self.producer.node, key, self.delivered, self.manner, self.speaker.replacement());
        // The follower registers as a reader of its own.
        self.lane().readers.detach_client();
        Some(Next::Follow(Box::new(follow), attached))
    }
}

/// The result of polling the inner body for events.
enum Produced {
    /// The body goes on. The flag says whether there is more to do at once.
    GoOn(bool),
    Follow,
}
