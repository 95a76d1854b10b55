//! Ending streams.

use redis::Value;

use super::super::{
    clock::millis,
    error::RedisStoreError,
    indexes::Indexed,
    keys::StreamKeys,
    pointers::PointerChange,
    request::Request,
    script,
    shared::Shared,
    stored::end,
    value::{self, ScriptReply, Stored},
};
use super::call::{Indexes, optional, written};
use crate::{
    model::{
        id::{EventId, NodeId},
        stream::Ended,
        turn::Turn,
    },
    runtime::sync::all,
    store::{Close, Closed},
    wire::{Sse, fields::terminal},
};

/// How many streams one script ends: a script blocks its server.
const CLOSES: usize = 32;

impl Shared {
    pub(in super::super) async fn close(&self, close: Close) -> Result<Closed, RedisStoreError> {
        let keys = self.keys.of(&close.key);
        if self.has_moved(&keys, close.if_deadline).await? {
            return Ok(Closed::Moved);
        }
        self.leases.forget(&keys.name);
        let names = self.names(&keys, &close.key, Indexes::BOTH.compared());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let call = self.with_close(Request::script(keys.slot, &script::CLOSE, &names), &keys, &close);
        let reply = self.fleet.ask(call).await?;
        self.read_closed(&close, &keys, reply).await
    }

    /// Ends many streams: on one server many in one script, in a cluster each by itself, since each has its own slot.
    pub(in super::super) async fn close_all(&self, closes: Vec<Close>) -> Result<Vec<Option<Closed>>, RedisStoreError> {
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
                call.with_all_of(&self.with_close(Request::new(0, redis::Cmd::new()), keys, close))
            })
        };
        of.iter().for_each(|keys| self.leases.forget(&keys.name));
        let replies = self.fleet.send(pages().map(call).collect()).await?;
        let mut results = Vec::with_capacity(closes.len());
        for ((closes, of), reply) in pages().zip(replies) {
            let mut replies = reply.and_then(|reply| value::array(reply, "close")).unwrap_or_default().into_iter();
            let closed = closes.iter().zip(of).map(|(close, keys)| (close, keys, replies.next()));
            let closed = closed.map(|(close, keys, reply)| async move {
                match reply? {
                    // The script stopped before this stream, since the newest entries of those before it were large.
                    again if is_again(&again) => self.close(close.clone()).await.ok(),
                    reply => self.read_closed(close, keys, reply).await.ok(),
                }
            });
            results.extend(all(closed).await);
        }
        Ok(results)
    }

    /// Adds the arguments for ending a stream to a call.
    fn with_close(&self, call: Request, keys: &StreamKeys, close: &Close) -> Request {
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

    /// Reads the outcome, and does what follows from it.
    async fn read_closed(&self, close: &Close, keys: &StreamKeys, reply: Value) -> Result<Closed, RedisStoreError> {
        let mut reply = ScriptReply::read(reply, "close")?;
        let closed = match &*reply.word {
            "now" => {
                let node = Some(reply.text()?).filter(|node| !node.is_empty());
                let id = EventId::terminal(reply.number()?);
                let last = EventId::from_pair(&reply.text()?).ok_or_else(|| reply.unknown())?;
                let ended = Ended { ending: close.ending.clone(), id, last, at: reply.number()? };
                if let Some(node) = &node {
                    self.tails.post(node, &keys.name);
                }
                let ttl = reply.number()?;
                let turn = Turn::parse(&reply.text()?);
                let followed = self.update_pointer(&close.key, turn.as_ref(), PointerChange::Expire(ttl));
                self.settle(&close.key, Some(Indexed::ended(ttl, close.hook))).await;
                followed.wait().await;
                Closed::Now { ended, node: node.map(NodeId::new) }
            }
            "before" => {
                let ended = end(&mut reply)?;
                let ttl = reply.number()?;
                // Also for a repeat: the node that ended the stream may have died before it changed the pointer.
                self.update_pointer(&close.key, Turn::parse(&reply.text()?).as_ref(), PointerChange::Expire(ttl))
                    .wait()
                    .await;
                ended.map_or(Closed::Newer, Closed::Before)
            }
            "newer" => Closed::Newer,
            "moved" => Closed::Moved,
            "missing" => Closed::Missing,
            _ => return Err(reply.unknown()),
        };
        if !matches!(closed, Closed::Moved) {
            self.forget_position(&keys.name);
        }
        self.tails.wake(&keys.name);
        Ok(closed)
    }
}

/// Whether the script for many streams left this one for another call.
fn is_again(reply: &Value) -> bool {
    matches!(reply, Value::Array(words) if matches!(&words[..], [Value::BulkString(word)] if word == b"again"))
}
