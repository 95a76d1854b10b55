//! Registering a running producer again.

use super::super::{
    clock::millis, error::RedisStoreError, indexes::Watching, logs::Amount, request::Request, reservation::Outcome,
    script, shared::Shared, stored::fence, value::ScriptReply,
};
use super::call::{Indexes, flagged, hex};
use crate::{
    model::{id::EventId, metadata::Metadata, turn::Turn},
    store::{Fence, Place, Reopen, Reopened},
};

impl Shared {
    pub(in super::super) async fn reopen(&self, reopen: Reopen) -> Result<Reopened, RedisStoreError> {
        let Reopen { open, epoch, acknowledged, inner_id, inner_retry, since } = reopen;
        let keys = self.keys.of(&open.key);
        let retention = &open.retention;
        let reservation = self.reserve(&open.key, Watching::produced(retention), false);
        self.leases.forget(&keys.name);
        let call = self
            .call(&keys, &open.key, &script::REOPEN, Indexes::default())
            .arg(hex(open.token))
            .arg(open.node.as_str())
            .arg(&*open.kind)
            .arg(epoch)
            .arg(u8::from(open.reruns))
            .arg(acknowledged)
            .arg(flagged(open.fingerprint.as_deref()))
            .arg(u8::from(inner_id.is_some()))
            .arg(millis(retention.stale))
            .arg(millis(retention.lifetime))
            .arg(millis(retention.recovery_window))
            .arg(retention.max_events)
            .arg(retention.max_bytes)
            .arg(open.key.owner.name().unwrap_or_default())
            .arg(self.keys.tail_channel(&keys.name))
            .arg(inner_id.unwrap_or_default())
            .arg(u8::from(open.started || acknowledged > 0))
            .arg(open.origin.as_str())
            .arg(inner_retry.map_or_else(String::new, |delay| delay.to_string()))
            .arg(open.voice.as_str())
            .arg(open.turn.as_ref().map_or_else(String::new, Turn::to_text))
            .arg(open.headers.to_text());
        let mut reply = ScriptReply::read(self.fleet.ask(pairs(call, &open.metadata)).await?, "reopen")?;
        let reopened = match &*reply.word {
            "registered" => {
                self.clock.set(reply.number()?);
                let taken = Amount::new(reply.number()?, reply.number()?);
                let max = Amount::new(retention.max_events as u64, retention.max_bytes as u64);
                self.forget_position(&keys.name);
                self.note_position(&keys.name, EventId::new(epoch, acknowledged), taken, max);
                self.put_back(&open.key, open.turn.as_ref(), Place { epoch, since }, retention.kept()).await;
                Reopened::Registered
            }
            "newer" => Reopened::Fenced(Fence::Newer),
            "ended" => Reopened::Fenced(fence(&mut reply)?),
            _ => return Err(reply.unknown()),
        };
        reservation.settle(if reopened == Reopened::Registered { Outcome::Registered } else { Outcome::Nothing }).await;
        self.tails.wake(&keys.name);
        Ok(reopened)
    }
}

fn pairs(request: Request, metadata: &Metadata) -> Request {
    metadata.iter().fold(request, |request, (key, kept)| request.arg(key).arg(kept))
}
