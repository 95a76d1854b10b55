//! Begins a turn of a request's conversation, or refuses the request.

use std::sync::Arc;

use super::{
    admit::Admission,
    asked::{Asked, registration},
};
use crate::{
    conversation::Beginning,
    model::{
        id::StreamKey,
        stream::StreamState,
        turn::{Overlap, Turn},
    },
    node::{Node, reject::Rejection},
    recorder::Lane,
    route::settings::Route,
    store::{Open, Opened},
};

impl Admission {
    /// Decides about a request of an owner who has as many streams as allowed.
    ///
    /// With `Overlap::Refuse` a turn is refused because of the conversation's running stream, if there is one. With
    /// `Overlap::Replace` a turn over the limit is admitted if a stream of its conversation runs, since that stream
    /// ends as soon as the turn has started.
    pub(super) async fn over_limit(node: &Arc<Node>, route: &Route, asked: Asked) -> Self {
        let limit = route.limit.unwrap_or(0);
        let refused = |asked: &Asked| match asked.position.is_reconnect() {
            // An `EventSource` would give up for good at a 429.
            true => Self::Retry,
            false => Self::Reject(Rejection::TooManyStreams { limit }),
        };
        let Some(turn) = asked.turn.clone() else { return refused(&asked) };
        let conversation = StreamKey::new(asked.key.owner.clone(), turn.conversation);
        let running = match node.current(&conversation).await {
            Ok(Some(current)) if current.info.state == StreamState::Active => current.info.key.id,
            _ => return refused(&asked),
        };
        match turn.overlap {
            Overlap::Allow => refused(&asked),
            Overlap::Refuse => Self::Reject(Rejection::Running { stream: running }),
            Overlap::Replace => {
                let request = registration(node, route, &asked, node.random.u128(), true);
                let request = Open { limit: Some(limit.saturating_add(1)), ..request };
                let (opening, opened) = node.recorder.open(request).await;
                match opened {
                    Ok(Opened::OverLimit) => refused(&asked),
                    opened => Box::pin(Self::decide(node, route, asked, opening, opened)).await,
                }
            }
        }
    }

    /// Refuses a request that names a stream of another conversation than its own, since the `authorize` hook was asked
    /// about the request's conversation only.
    pub(super) async fn in_other_conversation(node: &Node, asked: &Asked, held: &Opened) -> Option<Self> {
        let asks_for = &asked.turn.as_ref().filter(|_| !asked.begins)?.conversation;
        if !matches!(held, Opened::Active { .. } | Opened::Ended(_) | Opened::New { previous: Some(_), .. }) {
            return None;
        }
        let turn = match node.recorder.lane(&asked.key).and_then(|lane| Some(lane.turn()?.turn())) {
            Some(turn) => Some(turn),
            None => match node.store.info(asked.key.clone()).await {
                Ok(info) => info.and_then(|info| info.turn),
                Err(_) => return Some(Self::Retry),
            },
        };
        let is_other = turn.is_some_and(|turn| turn.conversation != *asks_for);
        is_other.then_some(Self::Reject(Rejection::OtherConversation))
    }

    /// Makes a registered stream a turn of its conversation. `runs_again` says whether an earlier run has begun the
    /// turn. The error is the admission to answer the request with instead.
    pub(super) async fn begin_turn(
        node: &Arc<Node>,
        route: &Route,
        asked: &Asked,
        lane: &Arc<Lane>,
        runs_again: bool,
        turn: Turn,
    ) -> Result<(), Self> {
        if runs_again {
            return match node.rejoin_turn(lane, turn).await {
                Some(stream) => Err(Self::Reject(Rejection::Running { stream })),
                None => Ok(()),
            };
        }
        let turn = asked.new_turn(turn);
        let refuses = turn.overlap == Overlap::Refuse;
        match node.begin_turn(lane, turn).await {
            Ok(Beginning::Pointed) => Ok(()),
            Ok(Beginning::Refused(stream)) => Err(Self::Reject(Rejection::Running { stream })),
            Ok(Beginning::Unknown) => Err(Self::Retry),
            Err(_) => match Self::without_store(route, asked.position) {
                // It is not known whether a stream of the conversation runs, so no turn begins.
                Self::Unrecorded if refuses => Err(Self::Retry),
                // The stream is registered, so it is recorded. The pointer moves when the store answers again.
                Self::Unrecorded => {
                    node.begin_anyway(lane);
                    Ok(())
                }
                refused => Err(refused),
            },
        }
    }
}
