//! The pointers of conversations: one key each, in a slot of its own. In a cluster that is mostly on another server than the
//! streams. So no step needs both: a stream is changed first, and its pointer after that.

use std::{sync::Arc, time::Duration};

use redis::{Value, cmd};

use super::{
    background::Settling,
    clock::millis,
    error::RedisStoreError,
    fleet::Fleet,
    indexes::{Indexed, standing},
    keys::{Keys, StreamKeys, name_of},
    request::Request,
    script,
    shared::Shared,
    value,
};
use crate::{
    model::{
        id::{StreamId, StreamKey},
        turn::Turn,
    },
    store::{Expected, Place, Point, Pointed, Pointer, Renew, Renewed, pointer::BEHIND},
};

/// How long a producer that registers again waits for its pointer. If it fails, the keeper puts it back later.
const PATIENCE: Duration = Duration::from_millis(100);

/// The change of a pointer that follows from the change of its stream.
pub(super) enum PointerChange {
    /// The stream is removed from the pointer, up to this run, because nothing is left of the stream.
    Unpoint(Option<u64>),
    /// The pointer expires with the stream, after this many milliseconds.
    Expire(u64),
}

impl Shared {
    pub(super) async fn pointer(&self, conversation: StreamKey) -> Result<Option<Pointer>, RedisStoreError> {
        let name = name_of(&conversation);
        let mut get = cmd("GET");
        get.arg(self.keys.conversation(&name));
        match self.fleet.ask(Request::new(self.keys.slot(&name), get).reading()).await {
            // A key of another type counts as no pointer.
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
            reply => Ok(value::text(reply?).and_then(|text| of_turns(text.split(' ')))),
        }
    }

    pub(super) async fn point(&self, point: Point) -> Result<Pointed, RedisStoreError> {
        let (expected, stream) = match &point.expected {
            Expected::Nothing => ("nothing", ""),
            Expected::Stream(stream) => ("stream", stream.as_str()),
        };
        let change = self
            .keys
            .changing(&point.conversation, "point")
            .arg(point.stream.as_str())
            .arg(point.place.epoch)
            .arg(millis(point.place.since))
            .arg(millis(point.ttl))
            .arg(BEHIND)
            .arg(expected)
            .arg(stream);
        let (moved, pointer) = read_pointer(self.fleet.ask(change).await?)?;
        match pointer {
            Some(pointer) if moved => Ok(Pointed::Moved(pointer)),
            pointer => Ok(Pointed::Kept(pointer)),
        }
    }

    pub(super) async fn unpoint(
        &self,
        conversation: StreamKey,
        stream: StreamId,
        epoch: Option<u64>,
    ) -> Result<Option<Pointer>, RedisStoreError> {
        Pointers { keys: self.keys.clone(), fleet: Arc::clone(&self.fleet) }
            .unpoint(&conversation, &stream, epoch)
            .await
    }

    pub(super) async fn give_way(
        &self,
        conversation: StreamKey,
        streams: Vec<StreamId>,
    ) -> Result<(), RedisStoreError> {
        let change =
            streams.iter().fold(self.keys.changing(&conversation, "yield"), |change, id| change.arg(id.as_str()));
        self.fleet.ask(change).await.map(drop)
    }

    pub(super) async fn renew(&self, renewals: Vec<Renew>) -> Result<Vec<Renewed>, RedisStoreError> {
        let changes = renewals.iter().map(|renew| self.keys.renewing(renew));
        let replies = self.fleet.send(changes.collect()).await?;
        let (mut renewed, mut failed) = (Vec::with_capacity(replies.len()), None);
        for reply in replies {
            match reply.and_then(read_pointer) {
                Ok((_, pointer)) => renewed.push(Renewed::Stands(pointer)),
                Err(error) => {
                    failed = Some(error);
                    renewed.push(Renewed::Refused);
                }
            }
        }
        match failed {
            Some(error) if renewed.iter().all(|renewed| *renewed == Renewed::Refused) => Err(error),
            _ => Ok(renewed),
        }
    }

    /// Puts back the pointer that was lost with its stream. This is awaited: the stream may be closed next, and the pointer must
    /// not be put back after that.
    pub(super) async fn put_back(&self, key: &StreamKey, turn: Option<&Turn>, place: Place, ttl: Duration) {
        let Some(turn) = turn else { return };
        let conversation = StreamKey::new(key.owner.clone(), turn.conversation.clone());
        let renew = Renew { conversation, stream: key.id.clone(), ttl, put_back: Some(place) };
        let pointers = Pointers { keys: self.keys.clone(), fleet: Arc::clone(&self.fleet) };
        let _ = tokio::time::timeout(PATIENCE, pointers.renew(&renew)).await;
    }

    /// Changes the pointer after its stream was changed. The caller waits for that briefly, so that a client who knows of the
    /// stream's change finds the pointer changed too, and a process that ends right after its last stream leaves no stale
    /// pointer. If it fails, the next reader of the pointer corrects it, or it expires.
    pub(super) fn update_pointer(&self, key: &StreamKey, turn: Option<&Turn>, change: PointerChange) -> Settling {
        let Some(turn) = turn else { return Settling::Nothing };
        let conversation = StreamKey::new(key.owner.clone(), turn.conversation.clone());
        let stream = key.id.clone();
        let pointers = Pointers { keys: self.keys.clone(), fleet: Arc::clone(&self.fleet) };
        let work = async move {
            let _ = match change {
                PointerChange::Unpoint(epoch) => pointers.unpoint(&conversation, &stream, epoch).await.map(drop),
                PointerChange::Expire(ttl) => {
                    let ttl = Duration::from_millis(ttl);
                    pointers.renew(&Renew { conversation, stream, ttl, put_back: None }).await
                }
            };
        };
        self.background.begin(work)
    }
}

/// What a task needs to change pointers. It may outlive its caller, but not the store.
struct Pointers {
    keys: Keys,
    fleet: Arc<Fleet>,
}

impl Pointers {
    async fn unpoint(
        &self,
        conversation: &StreamKey,
        stream: &StreamId,
        epoch: Option<u64>,
    ) -> Result<Option<Pointer>, RedisStoreError> {
        let (mut stream, mut epoch) = (stream.clone(), epoch);
        loop {
            let change = self.keys.changing(conversation, "unpoint").arg(stream.as_str());
            let change = change.arg(epoch.map_or_else(String::new, |epoch| epoch.to_string()));
            let (goes_back, pointer) = read_pointer(self.fleet.ask(change).await?)?;
            let Some(named) = pointer.as_ref().filter(|_| goes_back) else { return Ok(pointer) };
            let keys = self.keys.of(&StreamKey::new(conversation.owner.clone(), named.stream.clone()));
            let mut stands = self.stands(&keys).await?;
            while stands.ttl > 0 {
                self.renew(&Renew {
                    conversation: conversation.clone(),
                    stream: named.stream.clone(),
                    ttl: Duration::from_millis(stands.ttl),
                    put_back: None,
                })
                .await?;
                // If the stream ended in between, this renewal has undone the expiry that its end set: renew again.
                let was_active = std::mem::replace(&mut stands, self.stands(&keys).await?).active;
                if !was_active || stands.active {
                    return Ok(pointer);
                }
            }
            (stream, epoch) = (named.stream.clone(), Some(named.epoch));
        }
    }

    async fn stands(&self, keys: &StreamKeys) -> Result<Indexed, RedisStoreError> {
        standing(self.fleet.ask(self.keys.standing(keys)).await?)
    }

    async fn renew(&self, renew: &Renew) -> Result<(), RedisStoreError> {
        self.fleet.ask(self.keys.renewing(renew)).await.map(drop)
    }
}

impl Keys {
    fn changing(&self, conversation: &StreamKey, verb: &str) -> Request {
        let name = name_of(conversation);
        Request::script(self.slot(&name), &script::POINTER, &[&self.conversation(&name)]).arg(verb)
    }

    fn renewing(&self, renew: &Renew) -> Request {
        let change = self.changing(&renew.conversation, "renew").arg(renew.stream.as_str()).arg(millis(renew.ttl));
        match renew.put_back {
            Some(Place { epoch, since }) => change.arg(epoch).arg(millis(since)),
            None => change.arg("").arg(0),
        }
    }
}

/// Reads turns, each `stream:epoch:time`. Anything else is left out.
fn of_turns<'a>(turns: impl Iterator<Item = &'a str>) -> Option<Pointer> {
    let mut turns = turns.filter_map(|turn| {
        let mut parts = turn.split(':');
        Some((StreamId::new(parts.next()?).ok()?, parts.next()?.parse().ok()?))
    });
    let (stream, epoch) = turns.next()?;
    Some(Pointer { stream, epoch, behind: turns.map(|(stream, _): (_, u64)| stream).collect() })
}

/// Reads a reply: whether the pointer names another stream now (or was moved), and the pointer.
fn read_pointer(reply: Value) -> Result<(bool, Option<Pointer>), RedisStoreError> {
    let mut parts = value::array(reply, "pointer")?.into_iter();
    let moved = parts.next().as_ref().and_then(value::number) == Some(1);
    let turns: Vec<String> = parts.filter_map(value::text).collect();
    Ok((moved, of_turns(turns.iter().map(String::as_str))))
}
