//! Short forms of requests for the checks of pointers and turns.

use std::time::Duration;

use super::bench::{Bench, LONG, epoch_of};
use crate::{
    Overlap, Turn,
    model::id::{StreamId, StreamKey},
    store::{Expected, Open, Place, Point, Pointed, Pointer, Renew, Renewed, Store},
};

/// The place of a turn that begins now.
pub(super) const NEW: Place = Place { epoch: 1, since: Duration::ZERO };

pub(super) fn stream(id: &str) -> StreamId {
    StreamId::new(id).expect("a valid id")
}

/// Returns a pointer as text: the stream that it names, then the streams behind it.
pub(super) fn brief(pointer: Option<Pointer>) -> String {
    let Some(Pointer { stream, behind, .. }) = pointer else { return "-".to_owned() };
    std::iter::once(stream).chain(behind).map(|id| id.to_string()).collect::<Vec<_>>().join(" ")
}

impl<S: Store> Bench<S> {
    pub(super) async fn pointer_of(&self, conversation: &str) -> String {
        brief(self.pointer(self.key(conversation)).await.expect("the store answers"))
    }

    pub(super) async fn move_to(&self, conversation: &str, to: &str, expected: Expected, ttl: Duration) -> Pointed {
        self.move_run(conversation, to, NEW, expected, ttl).await
    }

    pub(super) async fn move_run(
        &self,
        conversation: &str,
        to: &str,
        place: Place,
        expected: Expected,
        ttl: Duration,
    ) -> Pointed {
        let point = Point { conversation: self.key(conversation), stream: stream(to), place, expected, ttl };
        self.point(point).await.expect("the store answers")
    }

    /// Moves a pointer from the stream that it names now. If another request moves it in between, tries again.
    pub(super) async fn move_on(&self, conversation: &str, to: &str, place: Place, ttl: Duration) -> Pointed {
        let pointer = self.pointer(self.key(conversation)).await.expect("the store answers");
        let mut held = pointer.map(|pointer| pointer.stream);
        loop {
            let expected = held.clone().map_or(Expected::Nothing, Expected::Stream);
            let pointed = self.move_run(conversation, to, place, expected, ttl).await;
            match &pointed {
                Pointed::Kept(now) if now.as_ref().map(|pointer| &pointer.stream) != held.as_ref() => {
                    held = now.as_ref().map(|pointer| pointer.stream.clone());
                }
                _ => return pointed,
            }
        }
    }

    /// Moves a pointer from the stream that it names now, and returns the new pointer as text. Panics if the pointer
    /// did not move.
    pub(super) async fn moved(&self, conversation: &str, to: &str) -> String {
        match self.move_on(conversation, to, NEW, LONG).await {
            Pointed::Moved(pointer) => brief(Some(pointer)),
            kept @ Pointed::Kept(_) => panic!("not moved: {kept:?}"),
        }
    }

    pub(super) async fn take_out(&self, conversation: &str, id: &str) -> String {
        brief(self.unpoint(self.key(conversation), stream(id), None).await.expect("the store answers"))
    }

    pub(super) async fn renew_one(&self, conversation: &str, id: &str, ttl: Duration, put_back: bool) -> String {
        let put_back = put_back.then_some(NEW);
        let renew = Renew { conversation: self.key(conversation), stream: stream(id), ttl, put_back };
        let renewed = self.renew(vec![renew]).await.expect("the store answers");
        match <[_; 1]>::try_from(renewed) {
            Ok([Renewed::Stands(pointer)]) => brief(pointer),
            other => panic!("one answer for each: {other:?}"),
        }
    }

    /// Returns a request to open a turn.
    pub(super) fn turn(&self, id: &str, conversation: &str) -> Open {
        let turn = Turn { conversation: stream(conversation), overlap: Overlap::Replace };
        Open { turn: Some(turn), ..self.request(id) }
    }

    /// Opens a turn, and moves the pointer to it.
    pub(super) async fn begin_turn(&self, id: &str, conversation: &str) -> (StreamKey, u64, u128) {
        let open = self.turn(id, conversation);
        let (key, token) = (open.key.clone(), open.token);
        let epoch = epoch_of(&self.ask(open).await);
        self.move_on(conversation, id, Place { epoch, since: Duration::ZERO }, LONG).await;
        (key, epoch, token)
    }
}
