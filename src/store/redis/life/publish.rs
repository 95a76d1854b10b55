//! Publishing without a registration.

use super::super::{
    clock::millis,
    error::RedisStoreError,
    indexes::{Indexed, Watching},
    reservation::Outcome,
    script,
    shared::Shared,
    stored::end,
    value::{ScriptReply, Stored},
};
use super::call::{Indexes, optional};
use crate::{
    model::{
        id::EventId,
        stream::{Ending, StreamState},
    },
    store::{Publish, Published},
    wire::{Sse, fields::terminal},
};

impl Shared {
    pub(in super::super) async fn publish(&self, publish: Publish) -> Result<Published, RedisStoreError> {
        let keys = self.keys.of(&publish.key);
        let retention = &publish.retention;
        let ending = publish.ends.map(|state| Ending::with_event(state, publish.block.clone()));
        let (kind, data) = ending.map(|ending| terminal(&Sse, &ending)).unwrap_or_default();
        let call = self
            .call(&keys, &publish.key, &script::SEND, Indexes::BOTH)
            .arg(&*publish.kind)
            .arg(if publish.ends.is_some() { Stored::block(&publish.block) } else { Stored::frame(&publish.block) })
            .arg(publish.ends.map(StreamState::as_str).unwrap_or_default())
            .arg(u8::from(publish.idempotency_key.is_some()))
            .arg(publish.idempotency_key.as_deref().unwrap_or_default())
            .arg(optional(publish.hook.map(millis)))
            .arg(millis(retention.stale))
            .arg(millis(retention.lifetime))
            .arg(millis(retention.recovery_window))
            .arg(retention.max_events)
            .arg(retention.max_bytes)
            .arg(publish.key.owner.name().unwrap_or_default())
            .arg(self.keys.tail_channel(&keys.name))
            .arg(kind)
            .arg(data.to_string())
            .arg(&*publish.after_id);
        let reservation = self.reserve(&publish.key, Watching::published(retention), false);
        let mut reply = ScriptReply::read(self.fleet.ask(call).await?, "send")?;
        let published = match &*reply.word {
            "stored" => {
                let id = EventId::from_pair(&reply.text()?).ok_or_else(|| reply.unknown())?;
                self.clock.set(reply.number()?);
                Published::Stored(id)
            }
            "ended" => {
                let ended = end(&mut reply)?.ok_or_else(|| reply.unknown())?;
                Published::Ended(ended)
            }
            "conflict" => Published::Conflict,
            "before" => end(&mut reply)?.map_or(Published::Conflict, Published::EndedBefore),
            _ => return Err(reply.unknown()),
        };
        reservation
            .settle(match &published {
                Published::Stored(_) => Outcome::Registered,
                Published::Ended(_) => Outcome::Ended(Indexed::ended(millis(retention.recovery_window), publish.hook)),
                Published::Conflict | Published::EndedBefore(_) => Outcome::Nothing,
            })
            .await;
        self.tails.wake(&keys.name);
        Ok(published)
    }
}
