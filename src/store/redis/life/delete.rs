//! Deletes a stream, or acknowledges its hook.

use super::super::{
    error::RedisStoreError, pointers::PointerChange, request::Request, script, shared::Shared, value::ScriptReply,
};
use super::call::Indexes;
use crate::model::{id::StreamKey, turn::Turn};

impl Shared {
    pub(in super::super) async fn delete(&self, key: StreamKey) -> Result<(), RedisStoreError> {
        let keys = self.keys.of(&key);
        self.leases.forget(&keys.name);
        let call = self
            .call(&keys, &key, &script::DELETE, Indexes::BOTH)
            .arg(self.keys.tail_channel(&keys.name))
            .arg(self.keys.node_channel(""));
        let mut reply = ScriptReply::read(self.fleet.ask(call).await?, "delete")?;
        if reply.word == "deleted" {
            let turn = Turn::parse(&reply.text()?);
            let followed = self.update_pointer(&key, turn.as_ref(), PointerChange::Unpoint(reply.number().ok()));
            self.forget_position(&keys.name);
            self.settle(&key, None).await;
            followed.wait().await;
        }
        self.tails.wake(&keys.name);
        Ok(())
    }

    pub(in super::super) async fn hook_done(&self, key: StreamKey) -> Result<(), RedisStoreError> {
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
