//! The response body of the layer.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use crate::{
    follow::{AnswerBody, FollowBody, closing::Closing, tell_step},
    model::{error::BodyError, id::EventId},
    node::Node,
    produce::{
        inner_body::InnerBody,
        live::{Attached, Live, Next},
    },
};

/// The response body of a [`ResilientSseLayer`](crate::ResilientSseLayer).
///
/// A body that is no event stream passes frame by frame, with its hints and trailers. The body of an event stream ends
/// cleanly only after the stream's terminal event, and otherwise breaks with a [`BodyError`]. On
/// [`feed()`](crate::ResilientSse::feed) routes, whose streams never finish, it always ends cleanly.
///
/// # Cancel safety
///
/// The body may be dropped at any point. The stream then goes on or ends as the route's
/// [`Disconnect`](crate::Disconnect) policy says, and the log holds the events that the client has not seen.
pub struct ResilientSseBody<B>
where
    B: InnerBody,
{
    state: State<B>,
}

enum State<B>
where
    B: InnerBody,
{
    Pass(Pin<Box<B>>),
    Live(Box<Live<B>>),
    /// Replays the events that the client missed of an earlier run, then gives the run that its request started.
    Rerun(Box<Rerun<B>>),
    /// Follows the log. `Attached` is set if the client's own request started the producer, which a drive polls now.
    Follow(
        Box<FollowBody>,
        #[expect(dead_code, reason = "dropping it reports that the client left")] Option<Attached<B>>,
    ),
    /// An answer of the library's own.
    Answer(AnswerBody),
    /// Gives the library's last events, then ends.
    Closing(Option<Bytes>, Closing),
}

struct Rerun<B>
where
    B: InnerBody,
{
    node: Arc<Node>,
    missed: FollowBody,
    live: Box<Live<B>>,
    run: EventId,
}

impl<B> ResilientSseBody<B>
where
    B: InnerBody,
{
    pub(crate) fn pass(body: B) -> Self {
        Self { state: State::Pass(Box::pin(body)) }
    }

    pub(crate) fn live(live: Live<B>) -> Self {
        Self { state: State::Live(Box::new(live)) }
    }

    pub(crate) fn rerun(node: Arc<Node>, missed: FollowBody, live: Live<B>, run: EventId) -> Self {
        Self { state: State::Rerun(Box::new(Rerun { node, missed, live: Box::new(live), run })) }
    }

    pub(crate) fn follow(body: Box<FollowBody>) -> Self {
        Self { state: State::Follow(body, None) }
    }

    pub(crate) fn answer(body: AnswerBody) -> Self {
        Self { state: State::Answer(body) }
    }

    pub(crate) fn closing(last: Option<Bytes>, closing: Closing) -> Self {
        Self { state: State::Closing(last.filter(|bytes| !bytes.is_empty()), closing) }
    }

    /// Breaks a live body off after the bytes that are written already.
    pub(crate) fn broken(live: Live<B>, error: BodyError) -> Self {
        let (last, closing) = live.break_off(error);
        Self::closing(last, closing)
    }

    /// Switches from the replay of the earlier run to the new run.
    fn go_live(&mut self) {
        let over = State::Closing(None, Closing::clean());
        let State::Rerun(rerun) = std::mem::replace(&mut self.state, over) else { return };
        let Rerun { node, mut missed, mut live, run } = *rerun;
        let step = missed.hand_over(run);
        live.set_speaker(missed.into_speaker());
        *self = match tell_step(&node, live.speaker(), step, run.epoch) {
            Ok(()) => Self { state: State::Live(live) },
            Err(error) => Self::broken(*live, error),
        };
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match &mut self.state {
                State::Live(live) => match ready!(live.poll_next(cx)) {
                    Next::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                    Next::Follow(follow, attached) => self.state = State::Follow(follow, Some(attached)),
                    Next::Over(closing) => self.state = State::Closing(None, closing),
                },
                State::Rerun(rerun) => {
                    // Counts as a poll of the live body: a client that stalls in the replay holds up the new run.
                    rerun.live.note_replay_polled();
                    match ready!(rerun.missed.poll_bytes(cx)) {
                        Some(Ok(frame)) => {
                            rerun.live.note_replay_given();
                            return Poll::Ready(Some(Ok(frame)));
                        }
                        Some(Err(error)) => {
                            self.state = State::Closing(None, Closing::clean());
                            return Poll::Ready(Some(Err(error)));
                        }
                        None if rerun.missed.is_handed_on() => self.go_live(),
                        // On a feed, a loss that the voice cannot express ends the body cleanly, and the client comes
                        // again.
                        None => self.state = State::Closing(None, Closing::clean()),
                    }
                }
                State::Follow(follow, _) => return follow.poll_bytes(cx),
                State::Answer(answer) => return answer.poll_bytes(cx),
                State::Closing(last, closing) => match last.take() {
                    Some(bytes) => return Poll::Ready(Some(Ok(bytes))),
                    None => return closing.poll(cx).map(|error| error.map(Err)),
                },
                State::Pass(_) => return Poll::Ready(None),
            }
        }
    }

    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let State::Pass(body) = &mut self.state else { return Poll::Ready(None) };
        let frame = ready!(body.as_mut().poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.state = State::Closing(None, Closing::clean());
        }
        Poll::Ready(frame.map(|frame| match frame {
            // Copies nothing if the data is `Bytes` already.
            Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
            Err(error) => Err(BodyError::Inner(error.into())),
        }))
    }
}

impl<B> Body for ResilientSseBody<B>
where
    B: InnerBody,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if matches!(this.state, State::Pass(_)) {
            return this.poll_pass(cx);
        }
        this.poll_bytes(cx).map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Pass(body) => body.is_end_stream(),
            State::Closing(last, closing) => last.is_none() && closing.is_over(),
            State::Follow(follow, _) => follow.is_end_stream(),
            State::Answer(answer) => answer.is_end_stream(),
            State::Live(_) | State::Rerun(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Pass(body) => body.size_hint(),
            State::Closing(last, closing) if closing.is_over() => {
                SizeHint::with_exact(last.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            State::Answer(answer) => answer.size_hint(),
            State::Closing(..) | State::Follow(..) | State::Live(_) | State::Rerun(_) => SizeHint::default(),
        }
    }
}

impl<B> fmt::Debug for ResilientSseBody<B>
where
    B: InnerBody,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Pass(_) => "ResilientSseBody(pass)",
            State::Live(_) => "ResilientSseBody(live)",
            State::Rerun(_) => "ResilientSseBody(rerun)",
            State::Follow(..) => "ResilientSseBody(follow)",
            State::Answer(_) => "ResilientSseBody(answer)",
            State::Closing(..) => "ResilientSseBody(closing)",
        })
    }
}
