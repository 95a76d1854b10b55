//! Leaving a stream without a producer.

use super::super::{
    error::RedisStoreError, pointers::PointerChange, script, shared::Shared, stored::fence, value::ScriptReply,
};
use super::call::{Indexes, optional};
use crate::{
    model::turn::Turn,
    store::{Fence, Interrupt, Interrupted},
};

impl Shared {
    pub(in super::super) async fn interrupt(&self, interrupt: Interrupt) -> Result<Interrupted, RedisStoreError> {
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
        let mut reply = ScriptReply::read(self.fleet.ask(call).await?, "interrupt")?;
        let interrupted = match &*reply.word {
            "done" => {
                let ttl = reply.number()?;
                let followed =
                    self.update_pointer(&key, Turn::parse(&reply.text()?).as_ref(), PointerChange::Expire(ttl));
                self.settle(&key, None).await;
                followed.wait().await;
                Interrupted::Done
            }
            "newer" => Interrupted::Fenced(Fence::Newer),
            "ended" => Interrupted::Fenced(fence(&mut reply)?),
            "moved" => Interrupted::Moved,
            "missing" => Interrupted::Missing,
            _ => return Err(reply.unknown()),
        };
        if interrupted != Interrupted::Moved {
            self.forget_position(&keys.name);
        }
        self.tails.wake(&keys.name);
        Ok(interrupted)
    }
}
