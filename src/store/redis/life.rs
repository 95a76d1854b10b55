//! The transitions of a stream's life, one script each. In a cluster the indexes lie in other slots than the stream, so
//! there they are kept by requests of their own: put in before the stream is, taken out after it.

use redis::Value;

use super::{
    Shared,
    clock::millis,
    cluster::Came,
    error::RedisStoreError,
    fleet::Request,
    indexes::{Indexed, Watching},
    keys::StreamKeys,
    logs::Amount,
    pointers::Follows,
    script::{self, Script},
    stored,
    value::{self, Stored, Told},
    write::fence,
};
use crate::{
    model::{
        id::{EventId, StreamKey},
        metadata::{Metadata, keep},
        stream::{Ended, Ending, StreamState},
        turn::Turn,
    },
    runtime::sync::all,
    store::{Close, Closed, Fence, Interrupt, Interrupted, Open, Opened, Place, Publish, Published, Reopen, Reopened},
    wire::{Sse, fields::terminal},
};

/// Streams that are ended in one script: a script holds the server up for all it does.
const CLOSES: usize = 32;

impl Shared {
    /// A script's call, with the indexes where they can be reached.
    fn call(&self, keys: &StreamKeys, key: &StreamKey, script: &'static Script, with: Indexes) -> Request {
        let names = self.names(keys, key, with);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Request::script(keys.slot, script, &names).arg(&keys.name).arg(key.id.as_str())
    }

    /// The keys that a script takes.
    fn names(&self, keys: &StreamKeys, key: &StreamKey, with: Indexes) -> Vec<String> {
        let mut names = vec![keys.stream.clone(), keys.log.clone(), keys.completion.clone()];
        names.extend(with.sent.then(|| self.keys.sent(keys)));
        if !self.cluster {
            let (_, owner) = self.keys.owner(&key.owner);
            names.extend([self.keys.active(0), owner]);
            names.extend(with.due.then(|| self.keys.due(0)));
            names.extend(with.leases.then(|| self.keys.leases(0)));
        }
        names
    }

    pub(super) async fn open(&self, open: Open) -> Result<Opened, RedisStoreError> {
        if let Some(refused) = self.admit(&open).await? {
            return Ok(refused);
        }
        let keys = self.keys.of(&open.key);
        let reservation = self.reserve(&open.key, Watching::produced(&open.retention), open.limit.is_some());
        let reply = match self.fleet.ask(self.opening(&keys, &open)).await {
            // A full server begins nothing, but what is held can still be followed.
            Err(error) if error.code() == Some("OOM") => {
                reservation.settle(Came::Nothing).await;
                return self.held(&open).await.and_then(|held| held.ok_or(error));
            }
            reply => reply?,
        };
        let mut told = Told::read(reply, "open")?;
        let opened = self.opened(&mut told, &keys.name, &open)?;
        let came = match &opened {
            Opened::New { .. } => {
                self.leases.forget(&keys.name);
                Came::Registered
            }
            Opened::Active { .. } => Came::Active,
            _ => Came::Nothing,
        };
        reservation.settle(came).await;
        self.tails.wake(&keys.name);
        Ok(opened)
    }

    /// What a request to open is told that need not register anything; `None` if it would have to.
    async fn held(&self, open: &Open) -> Result<Option<Opened>, RedisStoreError> {
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

    fn opening(&self, keys: &StreamKeys, open: &Open) -> Request {
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

    fn opened(&self, told: &mut Told, name: &str, open: &Open) -> Result<Opened, RedisStoreError> {
        Ok(match &*told.word {
            "new" => {
                let epoch = told.number()?;
                let previous = EventId::from_pair(&told.text()?);
                let inner_id = value::text(told.next()?);
                self.clock.heard(told.number()?);
                let taken = Amount::new(told.number()?, told.number()?);
                let max = Amount::new(open.retention.max_events as u64, open.retention.max_bytes as u64);
                self.know(name, EventId::new(epoch, 0), taken, max);
                let origin = stored::origin(told.text().ok().as_deref());
                Opened::New { epoch, previous, inner_id, origin }
            }
            "active" => Opened::Active { started: told.number()? == 1 },
            // An end that cannot be read, another version's perhaps, is that of a stream that cannot be served.
            "ended" => end(told)?.map_or(Opened::Missing, Opened::Ended),
            "missing" => Opened::Missing,
            "over" => Opened::OverLimit,
            "other" => Opened::OtherFingerprint,
            "kind" => Opened::OtherKind { kind: told.text()?.into() },
            _ => return Err(told.unknown()),
        })
    }

    pub(super) async fn withdraw(&self, key: StreamKey, token: u128) -> Result<(), RedisStoreError> {
        let keys = self.keys.of(&key);
        self.leases.forget(&keys.name);
        let channel = self.keys.tail_channel(&keys.name);
        let call = self.call(&keys, &key, &script::WITHDRAW, Indexes::DUE).arg(hex(token)).arg(channel);
        let mut told = Told::read(self.fleet.ask(call).await?, "withdraw")?;
        if told.word == "taken" {
            let turn = Turn::parse(&told.text()?);
            let followed = self.has_followed(&key, turn.as_ref(), Follows::Unpoint(told.number().ok()));
            self.forget(&keys.name);
            self.settle(&key, None).await;
            followed.wait().await;
        }
        self.tails.wake(&keys.name);
        Ok(())
    }

    pub(super) async fn close(&self, close: Close) -> Result<Closed, RedisStoreError> {
        let keys = self.keys.of(&close.key);
        if self.has_moved(&keys, close.if_deadline).await? {
            return Ok(Closed::Moved);
        }
        self.leases.forget(&keys.name);
        let names = self.names(&keys, &close.key, Indexes::BOTH.compared());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let call = self.closing(Request::script(keys.slot, &script::CLOSE, &names), &keys, &close);
        let reply = self.fleet.ask(call).await?;
        self.closed(&close, &keys, reply).await
    }

    /// On one server many in one script. In a cluster each has a slot of its own.
    pub(super) async fn close_all(&self, closes: Vec<Close>) -> Result<Vec<Option<Closed>>, RedisStoreError> {
        if self.cluster {
            return Ok(all(closes.into_iter().map(|close| self.close(close)))
                .await
                .into_iter()
                .map(Result::ok)
                .collect());
        }
        let of: Vec<StreamKeys> = closes.iter().map(|close| self.keys.of(&close.key)).collect();
        let pages = || closes.chunks(CLOSES).zip(of.chunks(CLOSES));
        let call = |(closes, of): (&[Close], &[StreamKeys])| {
            let names: Vec<Vec<String>> = closes
                .iter()
                .zip(of)
                .map(|(close, keys)| self.names(keys, &close.key, Indexes::BOTH.compared()))
                .collect();
            let names: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
            let call = Request::script(0, &script::CLOSE_EACH, &names).arg(closes.len());
            closes.iter().zip(of).fold(call, |call, (close, keys)| {
                call.with_all_of(&self.closing(Request::new(0, redis::Cmd::new()), keys, close))
            })
        };
        of.iter().for_each(|keys| self.leases.forget(&keys.name));
        let replies = self.fleet.send(pages().map(call).collect()).await?;
        let mut told = Vec::with_capacity(closes.len());
        for ((closes, of), reply) in pages().zip(replies) {
            let mut replies = reply.and_then(|reply| value::array(reply, "close")).unwrap_or_default().into_iter();
            let closed = closes.iter().zip(of).map(|(close, keys)| (close, keys, replies.next()));
            let closed = closed.map(|(close, keys, reply)| async move {
                match reply? {
                    // The newest entries of those before it were large.
                    again if is_again(&again) => self.close(close.clone()).await.ok(),
                    reply => self.closed(close, keys, reply).await.ok(),
                }
            });
            told.extend(all(closed).await);
        }
        Ok(told)
    }

    /// What the script that ends a stream is told.
    fn closing(&self, call: Request, keys: &StreamKeys, close: &Close) -> Request {
        let Close { key, epoch, ending, last, if_deadline, hook } = close;
        let (kind, data) = terminal(&Sse, ending);
        let call = call
            .arg(&keys.name)
            .arg(key.id.as_str())
            .arg(optional(*epoch))
            .arg(ending.state.as_str())
            .arg(optional(*last))
            .arg(optional(*if_deadline))
            .arg(optional(hook.map(millis)))
            .arg(self.keys.tail_channel(&keys.name))
            .arg(self.keys.node_channel(""));
        let mut call = match self.all_taken(&keys.name, *epoch, *last) {
            Some(taken) => call.arg(taken.events).arg(taken.bytes),
            None => call.arg("").arg(""),
        };
        call = written(call, ("v", 1));
        call = written(call, ("state", ending.state.as_str()));
        call = written(call, ("terminalEventType", kind));
        call = written(call, ("terminalEventData", data.to_string()));
        if let Some(reason) = &ending.reason {
            call = written(call, ("reason", &**reason));
        }
        if let Some(event) = &ending.event {
            call = written(call, ("event", Stored::block(event)));
        }
        if hook.is_some() {
            call = written(call, ("onEnd", "due"));
        }
        call
    }

    /// What it said.
    async fn closed(&self, close: &Close, keys: &StreamKeys, reply: Value) -> Result<Closed, RedisStoreError> {
        let mut told = Told::read(reply, "close")?;
        let closed = match &*told.word {
            "now" => {
                let node = Some(told.text()?).filter(|node| !node.is_empty());
                let id = EventId::terminal(told.number()?);
                let last = EventId::from_pair(&told.text()?).ok_or_else(|| told.unknown())?;
                let ended = Ended { ending: close.ending.clone(), id, last, at: told.number()? };
                if let Some(node) = &node {
                    self.tails.post(node, &keys.name);
                }
                let ttl = told.number()?;
                let turn = Turn::parse(&told.text()?);
                let followed = self.has_followed(&close.key, turn.as_ref(), Follows::Expire(ttl));
                self.settle(&close.key, Some(Indexed::ended(ttl, close.hook))).await;
                followed.wait().await;
                Closed::Now { ended, node: node.map(crate::NodeId::new) }
            }
            "before" => {
                let ended = end(&mut told)?;
                let ttl = told.number()?;
                // A repeat, too: whoever sent the first may have died before the pointer followed.
                self.has_followed(&close.key, Turn::parse(&told.text()?).as_ref(), Follows::Expire(ttl)).wait().await;
                ended.map_or(Closed::Newer, Closed::Before)
            }
            "newer" => Closed::Newer,
            "moved" => Closed::Moved,
            "missing" => Closed::Missing,
            _ => return Err(told.unknown()),
        };
        if !matches!(closed, Closed::Moved) {
            self.forget(&keys.name);
        }
        self.tails.wake(&keys.name);
        Ok(closed)
    }

    pub(super) async fn interrupt(&self, interrupt: Interrupt) -> Result<Interrupted, RedisStoreError> {
        let Interrupt { key, epoch, last, if_deadline } = interrupt;
        let keys = self.keys.of(&key);
        if self.has_moved(&keys, if_deadline).await? {
            return Ok(Interrupted::Moved);
        }
        self.leases.forget(&keys.name);
        let call = self
            .call(&keys, &key, &script::INTERRUPT, Indexes::DUE.compared())
            .arg(epoch)
            .arg(optional(last))
            .arg(optional(if_deadline))
            .arg(self.keys.tail_channel(&keys.name))
            .arg(self.keys.node_channel(""));
        let mut told = Told::read(self.fleet.ask(call).await?, "interrupt")?;
        let interrupted = match &*told.word {
            "done" => {
                let ttl = told.number()?;
                let followed = self.has_followed(&key, Turn::parse(&told.text()?).as_ref(), Follows::Expire(ttl));
                self.settle(&key, None).await;
                followed.wait().await;
                Interrupted::Done
            }
            "newer" => Interrupted::Fenced(Fence::Newer),
            "ended" => Interrupted::Fenced(fence(&mut told)?),
            "moved" => Interrupted::Moved,
            "missing" => Interrupted::Missing,
            _ => return Err(told.unknown()),
        };
        if interrupted != Interrupted::Moved {
            self.forget(&keys.name);
        }
        self.tails.wake(&keys.name);
        Ok(interrupted)
    }

    pub(super) async fn reopen(&self, reopen: Reopen) -> Result<Reopened, RedisStoreError> {
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
        let mut told = Told::read(self.fleet.ask(pairs(call, &open.metadata)).await?, "reopen")?;
        let reopened = match &*told.word {
            "registered" => {
                self.clock.heard(told.number()?);
                let taken = Amount::new(told.number()?, told.number()?);
                let max = Amount::new(retention.max_events as u64, retention.max_bytes as u64);
                self.forget(&keys.name);
                self.know(&keys.name, EventId::new(epoch, acknowledged), taken, max);
                self.put_back(&open.key, open.turn.as_ref(), Place { epoch, since }, retention.kept()).await;
                Reopened::Registered
            }
            "newer" => Reopened::Fenced(Fence::Newer),
            "ended" => Reopened::Fenced(fence(&mut told)?),
            _ => return Err(told.unknown()),
        };
        reservation.settle(if reopened == Reopened::Registered { Came::Registered } else { Came::Nothing }).await;
        self.tails.wake(&keys.name);
        Ok(reopened)
    }

    pub(super) async fn publish(&self, publish: Publish) -> Result<Published, RedisStoreError> {
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
        let mut told = Told::read(self.fleet.ask(call).await?, "send")?;
        let published = match &*told.word {
            "stored" => {
                let id = EventId::from_pair(&told.text()?).ok_or_else(|| told.unknown())?;
                self.clock.heard(told.number()?);
                Published::Stored(id)
            }
            "ended" => {
                let ended = end(&mut told)?.ok_or_else(|| told.unknown())?;
                Published::Ended(ended)
            }
            "conflict" => Published::Conflict,
            "before" => end(&mut told)?.map_or(Published::Conflict, Published::EndedBefore),
            _ => return Err(told.unknown()),
        };
        reservation
            .settle(match &published {
                Published::Stored(_) => Came::Registered,
                Published::Ended(_) => Came::Ended(Indexed::ended(millis(retention.recovery_window), publish.hook)),
                Published::Conflict | Published::EndedBefore(_) => Came::Nothing,
            })
            .await;
        self.tails.wake(&keys.name);
        Ok(published)
    }

    pub(super) async fn delete(&self, key: StreamKey) -> Result<(), RedisStoreError> {
        let keys = self.keys.of(&key);
        self.leases.forget(&keys.name);
        let call = self
            .call(&keys, &key, &script::DELETE, Indexes::BOTH)
            .arg(self.keys.tail_channel(&keys.name))
            .arg(self.keys.node_channel(""));
        let mut told = Told::read(self.fleet.ask(call).await?, "delete")?;
        if told.word == "deleted" {
            let turn = Turn::parse(&told.text()?);
            let followed = self.has_followed(&key, turn.as_ref(), Follows::Unpoint(told.number().ok()));
            self.forget(&keys.name);
            self.settle(&key, None).await;
            followed.wait().await;
        }
        self.tails.wake(&keys.name);
        Ok(())
    }

    pub(super) async fn hook_done(&self, key: StreamKey) -> Result<(), RedisStoreError> {
        let keys = self.keys.of(&key);
        let due = self.keys.due(0);
        let mut names = vec![&*keys.completion];
        if !self.cluster {
            names.push(&due);
        }
        let hooked = Request::script(keys.slot, &script::HOOKED, &names).arg(&keys.name);
        self.fleet.ask(hooked).await?;
        self.settle_hook(keys).await;
        Ok(())
    }
}

/// Which keys a script takes besides the stream's own.
#[derive(Clone, Copy, Default)]
struct Indexes {
    sent: bool,
    due: bool,
    /// What a deadline that is compared may stand for.
    leases: bool,
}

impl Indexes {
    const DUE: Self = Self { sent: false, due: true, leases: false };
    const BOTH: Self = Self { sent: true, ..Self::DUE };

    fn compared(self) -> Self {
        Self { leases: true, ..self }
    }
}

fn hex(token: u128) -> String {
    format!("{token:032x}")
}

/// A text that may be missing, where an empty one is not the same.
fn flagged(text: Option<&str>) -> String {
    text.map(|text| format!("={text}")).unwrap_or_default()
}

fn optional(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// A field of a hash that a script writes.
fn written(request: Request, (name, value): (&str, impl redis::ToRedisArgs)) -> Request {
    request.arg(name).arg(value)
}

fn pairs(request: Request, metadata: &Metadata) -> Request {
    metadata.iter().fold(request, |request, (key, kept)| request.arg(key).arg(kept))
}

fn end(told: &mut Told) -> Result<Option<Ended>, RedisStoreError> {
    Ok(stored::ended(told.fields()?))
}

/// Whether a script for many streams did nothing for this one.
fn is_again(reply: &Value) -> bool {
    matches!(reply, Value::Array(words) if matches!(&words[..], [Value::BulkString(word)] if word == b"again"))
}
