//! What a handler can learn of its stream, and say of it.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use tokio_util::sync::WaitForCancellationFuture;

use super::state::{Early, Inner, StreamContext, Waiting};
use crate::{
    layer::{admit::Admission, asked::Asked},
    model::{
        id::{EventId, Owner, StreamId},
        metadata::{MetadataTooLarge, keep},
        turn::Turn,
    },
    node::reject::Rejection,
    recorder::Lane,
    runtime::sync::lock,
};

impl StreamContext {
    /// The stream's name.
    #[must_use]
    pub fn id(&self) -> &StreamId {
        &self.0.asked.key.id
    }

    /// The owner of the stream.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.0.asked.key.owner
    }

    /// Whether the stream is recorded, and metadata kept; `None` until that is known, which on a route that makes up ids is
    /// after the handler has answered.
    #[must_use]
    pub fn is_recorded(&self) -> Option<bool> {
        self.0.recorded.get().copied()
    }

    /// Which run this is; `None` until the stream is registered, which on a route that makes up ids
    /// happens once the handler has answered.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.0.lane.get().map(|lane| lane.epoch)
    }

    /// The last event that the client saw, if it came with a readable cursor.
    #[must_use]
    pub fn cursor(&self) -> Option<EventId> {
        self.0.asked.cursor()
    }

    /// The last id that the handler itself gave an event of this stream, in an earlier run.
    /// The inner request carries the same as its `Last-Event-ID`.
    #[must_use]
    pub fn last_inner_id(&self) -> Option<&str> {
        self.0.last_inner_id.as_deref()
    }

    /// Ready once the stream's work is to stop: the stream was stopped or ended elsewhere, nobody has read it for too
    /// long, an event was too large, the process goes down, or the handler is dropped before it answers.
    ///
    /// The body is dropped in all these cases. This future is for work that the body does not own.
    ///
    /// # Cancel safety
    ///
    /// Waiting changes nothing; once ready, always ready.
    pub fn stopped(&self) -> WaitStopped<'_> {
        WaitStopped { wait: self.0.stop.token().cancelled() }
    }

    /// Whether the stream's work is to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stop.is_stopped()
    }

    /// Keeps something with the stream, such as the id of the job that makes its events: a job
    /// probe gets it, on any node. It is stored before the next event is delivered. A key that is kept already is
    /// replaced.
    ///
    /// On an unrecorded stream this is `Ok`, but nothing is kept: see [`is_recorded`](Self::is_recorded).
    ///
    /// # Errors
    ///
    /// [`MetadataTooLarge`] if the stream would keep more than 4 KiB of keys and values; the metadata from before stays.
    pub fn metadata(&self, key: impl Into<String>, value: impl Into<String>) -> Result<(), MetadataTooLarge> {
        let (key, value) = (key.into(), value.into());
        let mut metadata = lock(&self.0.metadata);
        let kept = match self.0.lane.get() {
            Some(lane) => lane.keep(&self.0.node.recorder, key, value),
            None => keep(&mut metadata, key, value).map(drop),
        };
        kept.map_err(|bytes| MetadataTooLarge { bytes })
    }

    /// Makes the stream a turn of its owner's conversation of this name, for a handler that finds the name in the request's body; see
    /// [`ResilientSseLayer::conversation`](crate::ResilientSseLayer::conversation) for one that stands in the head. A stream that is not registered yet is registered
    /// at once.
    ///
    /// ```
    /// # use resilient_sse::StreamContext;
    /// # use http::StatusCode;
    /// # struct Question { chat: String }
    /// async fn ask(stream: &StreamContext, question: &Question) -> Result<(), (StatusCode, String)> {
    ///     let named = stream.conversation(&question.chat).await;
    ///     named.map_err(|refused| (refused.status(), refused.to_string()))
    /// }
    /// ```
    ///
    /// While the store is away this is `Ok` on a route that serves streams unrecorded then: see [`is_recorded`](Self::is_recorded). If the
    /// handler answers with something else than an event stream, fails or is dropped, the turn is withdrawn. On a
    /// [`Detach`](crate::Disconnect::Detach) route the handler goes on from here if its client leaves, and the conversation is resumed.
    ///
    /// # Errors
    ///
    /// [`Rejection`], which has the status that the handler should answer with: `Running` with [`Overlap::Refuse`](crate::Overlap::Refuse) while
    /// another stream of the conversation runs (a 409 then gets its `X-Stream-Id`), `MalformedConversation`, `OtherConversation` if the stream is a turn of another one, `NotFound`
    /// if [`Builder::authorize`](crate::Builder::authorize) denies it, and whatever keeps a stream from being registered.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the stream is registered or not; what was registered is withdrawn.
    pub async fn conversation(&self, name: impl AsRef<str>) -> Result<(), Rejection> {
        let conversation = StreamId::new(name).map_err(Rejection::MalformedConversation)?;
        let Inner { node, route, asked, lane, .. } = &*self.0;
        node.authorize_in(&self.0.asked.key, Some(&conversation), &asked.head).await?;
        let turn = Turn { conversation, overlap: route.overlap };
        match lane.get() {
            Some(lane) => self.name_registered(lane, turn).await,
            None if self.is_recorded() == Some(false) => Ok(()),
            None => self.register(turn).await,
        }
    }

    /// Makes a stream that is registered a turn.
    async fn name_registered(&self, lane: &Arc<Lane>, turn: Turn) -> Result<(), Rejection> {
        let node = &self.0.node;
        match lane.turn() {
            Some(named) if named.turn().conversation != turn.conversation => return Err(Rejection::OtherConversation),
            // One that was refused may ask again.
            Some(named) if !named.waits() => return Ok(()),
            _ => {}
        }
        // A run after the first is no new turn.
        let runs_again = self.0.runs_again.load(Ordering::Relaxed);
        if !runs_again {
            node.name_turn(lane, self.0.asked.new_turn(turn.clone()));
            // Before the pointer is moved: should the client leave in between, the withdrawal takes the pointer back.
            node.recorder.say_again(lane).await;
        }
        let begun = Admission::begin_turn(node, &self.0.route, &self.0.asked, lane, runs_again, turn).await;
        begun.map_err(|refused| self.refused(refused))
    }

    /// Why the stream is no turn, for the handler; noted for the head of its answer.
    fn refused(&self, admission: Admission) -> Rejection {
        let Admission::Reject(rejection) = admission else { return Rejection::ComeAgain };
        if let Rejection::Running { stream } = &rejection {
            let _ = self.0.in_the_way.set(stream.clone());
        }
        rejection
    }

    /// Registers the stream as a turn, before its handler has answered.
    async fn register(&self, turn: Turn) -> Result<(), Rejection> {
        let Inner { node, route, asked, .. } = &*self.0;
        if !matches!(std::mem::replace(&mut *lock(&self.0.early), Early::UnderWay), Early::Open) {
            return Err(Rejection::OtherConversation);
        }
        let _ends = EndsUnderWay(self);
        let asked = Asked { turn: Some(turn), metadata: self.kept(), ..asked.clone() };
        match Admission::register_for(node, route, asked).await {
            Admission::Produce(registered) => {
                self.registered(&registered.lane);
                let waiting = Box::new(Waiting::new(registered, self.clone(), route.endless));
                self.hold(waiting).map_err(|late| {
                    // Withdrawn with this.
                    drop(late);
                    Rejection::ComeAgain
                })
            }
            Admission::Unrecorded => {
                self.unrecorded();
                Ok(())
            }
            refused => Err(self.refused(refused)),
        }
    }
}

/// Notes that a registration is under way no more, should it have come to nothing.
struct EndsUnderWay<'a>(&'a StreamContext);

impl Drop for EndsUnderWay<'_> {
    fn drop(&mut self) {
        let mut early = lock(&self.0.0.early);
        if matches!(*early, Early::UnderWay) {
            *early = Early::Open;
        }
    }
}

impl fmt::Debug for StreamContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamContext")
            .field("id", self.id())
            .field("epoch", &self.epoch())
            .field("cursor", &self.cursor())
            .finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// Ready once the work is to stop: see [`StreamContext::stopped`].
    #[must_use = "futures do nothing unless polled"]
    pub struct WaitStopped<'a> {
        #[pin]
        wait: WaitForCancellationFuture<'a>,
    }
}

impl Future for WaitStopped<'_> {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.project().wait.poll(cx)
    }
}

impl fmt::Debug for WaitStopped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitStopped")
    }
}
