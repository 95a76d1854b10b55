//! Registering a producer, and taking that back.

use super::super::{
    clock::millis,
    error::RedisStoreError,
    indexes::Watching,
    keys::StreamKeys,
    logs::Amount,
    pointers::PointerChange,
    request::Request,
    reservation::Outcome,
    script,
    shared::Shared,
    stored::{self, end},
    value::{self, ScriptReply},
};
use super::call::{Indexes, flagged, hex, written};
use crate::{
    model::{
        id::{EventId, StreamKey},
        metadata::{Metadata, keep},
        stream::StreamState,
        turn::Turn,
    },
    store::{Open, Opened},
};

impl Shared {
    pub(in super::super) async fn open(&self, open: Open) -> Result<Opened, RedisStoreError> {
        if let Some(refused) = self.admit(&open).await? {
            return Ok(refused);
        }
        let keys = self.keys.of(&open.key);
        let reservation = self.reserve(&open.key, Watching::produced(&open.retention), open.limit.is_some());
        let reply = match self.fleet.ask(self.open_request(&keys, &open)).await {
            // A full server registers nothing, but streams that it holds can still be followed.
            Err(error) if error.code() == Some("OOM") => {
                reservation.settle(Outcome::Nothing).await;
                return self.open_on_full(&open).await.and_then(|held| held.ok_or(error));
            }
            reply => reply?,
        };
        let mut reply = ScriptReply::read(reply, "open")?;
        let opened = self.read_opened(&mut reply, &keys.name, &open)?;
        let outcome = match &opened {
            Opened::New { .. } => {
                self.leases.forget(&keys.name);
                Outcome::Registered
            }
            Opened::Active { .. } => Outcome::Active,
            _ => Outcome::Nothing,
        };
        reservation.settle(outcome).await;
        self.tails.wake(&keys.name);
        Ok(opened)
    }

    /// The outcome of a request to open on a full server, which can register nothing. `None`: it would have to register.
    async fn open_on_full(&self, open: &Open) -> Result<Option<Opened>, RedisStoreError> {
        let Some(info) = self.info(open.key.clone()).await? else {
            return Ok((!open.create).then_some(Opened::Missing));
        };
        let refused = open.refused_by(info.origin, &info.kind, info.fingerprint.as_deref());
        Ok(match (info.ended, info.state) {
            _ if refused.is_some() => refused,
            (Some(ended), _) => Some(Opened::Ended(ended)),
            (None, StreamState::Active) => Some(Opened::Active { started: info.started }),
            (None, _) => None,
        })
    }

    fn open_request(&self, keys: &StreamKeys, open: &Open) -> Request {
        let retention = &open.retention;
        let (turn, headers) = (open.turn.as_ref().map_or_else(String::new, Turn::to_text), open.headers.to_text());
        let fingerprint = flagged(open.fingerprint.as_deref());
        let mut request = self
            .call(keys, &open.key, &script::OPEN, Indexes::default())
            .arg(hex(open.token))
            .arg(u8::from(open.create))
            .arg(&fingerprint)
            .arg(open.limit.filter(|_| !self.cluster).map_or(String::new(), |limit| limit.to_string()))
            .arg(Watching::produced(retention).overdue)
            .arg(millis(retention.kept()))
            .arg(self.keys.tail_channel(&keys.name))
            .arg(open.origin.as_str())
            .arg(&*open.kind)
            .arg(u8::from(open.started))
            .arg(&turn)
            .arg(&headers)
            .arg(retention.max_events);
        request = written(request, ("v", 1));
        request = written(request, ("state", StreamState::Active.as_str()));
        request = written(request, ("token", hex(open.token)));
        request = written(request, ("node", open.node.as_str()));
        request = written(request, ("kind", &*open.kind));
        request = written(request, ("owner", open.key.owner.name().unwrap_or_default()));
        request = written(request, ("reruns", u8::from(open.reruns)));
        request = written(request, ("started", u8::from(open.started)));
        request = written(request, ("stale", millis(retention.stale)));
        request = written(request, ("life", millis(retention.lifetime)));
        request = written(request, ("window", millis(retention.recovery_window)));
        request = written(request, ("maxEvents", retention.max_events));
        request = written(request, ("maxBytes", retention.max_bytes));
        request = written(request, ("voice", open.voice.as_str()));
        for (name, text) in [("fp", fingerprint), ("turn", turn), ("headers", headers)] {
            if !text.is_empty() {
                request = written(request, (name, text));
            }
        }
        let mut kept = Metadata::new();
        for (name, value) in &open.metadata {
            // The pairs that fit are kept.
            let _ = keep(&mut kept, name.clone(), value.clone());
        }
        kept.into_iter().fold(request, |request, (name, value)| written(request, (&*format!("m:{name}"), value)))
    }

    fn read_opened(&self, reply: &mut ScriptReply, name: &str, open: &Open) -> Result<Opened, RedisStoreError> {
        Ok(match &*reply.word {
            "new" => {
                let epoch = reply.number()?;
                let previous = EventId::from_pair(&reply.text()?);
                let inner_id = value::text(reply.next()?);
                self.clock.set(reply.number()?);
                let taken = Amount::new(reply.number()?, reply.number()?);
                let max = Amount::new(open.retention.max_events as u64, open.retention.max_bytes as u64);
                self.note_position(name, EventId::new(epoch, 0), taken, max);
                let origin = stored::origin(reply.text().ok().as_deref());
                Opened::New { epoch, previous, inner_id, origin }
            }
            "active" => Opened::Active { started: reply.number()? == 1 },
            // An end that cannot be read, perhaps of another version: the stream cannot be served.
            "ended" => end(reply)?.map_or(Opened::Missing, Opened::Ended),
            "missing" => Opened::Missing,
            "over" => Opened::OverLimit,
            "other" => Opened::OtherFingerprint,
            "kind" => Opened::OtherKind { kind: reply.text()?.into() },
            _ => return Err(reply.unknown()),
        })
    }

    pub(in super::super) async fn withdraw(&self, key: StreamKey, token: u128) -> Result<(), RedisStoreError> {
        let keys = self.keys.of(&key);
        self.leases.forget(&keys.name);
        let channel = self.keys.tail_channel(&keys.name);
        let call = self.call(&keys, &key, &script::WITHDRAW, Indexes::DUE).arg(hex(token)).arg(channel);
        let mut reply = ScriptReply::read(self.fleet.ask(call).await?, "withdraw")?;
        if reply.word == "taken" {
            let turn = Turn::parse(&reply.text()?);
            let followed = self.update_pointer(&key, turn.as_ref(), PointerChange::Unpoint(reply.number().ok()));
            self.forget_position(&keys.name);
            self.settle(&key, None).await;
            followed.wait().await;
        }
        self.tails.wake(&keys.name);
        Ok(())
    }
}
