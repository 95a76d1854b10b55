//! Stateless publishing: events without a standing producer.

use std::sync::Arc;

use bytes::Bytes;

use super::state::Entry;
use crate::{
    model::{
        id::{EventId, NodeId},
        kept::KeptHeaders,
        metadata::Metadata,
        stream::{Ended, Ending, Frame, Origin, StreamState},
        voice::Voice,
    },
    store::{Open, Publish, Published, TailCell, memory::log::Log},
};

impl Entry {
    /// A stream that nobody beats: it lives as long as something is published.
    pub(in super::super) fn published(publish: &Publish, epoch: u64, tail: Arc<TailCell>, now: u64) -> Self {
        Self { node: None, ..Self::new(&registration(publish), epoch, Log::default(), tail, now) }
    }

    pub(in super::super) fn publish(&mut self, publish: Publish, now: u64) -> Published {
        if let Some(key) = &publish.idempotency_key
            && let Some(id) = self.keys.as_ref().and_then(|keys| keys.id_of(key))
        {
            return match &self.ended {
                Some(ended) if ended.id == id => Published::Ended(Ended::clone(ended)),
                _ => Published::Stored(id),
            };
        }
        if self.node.is_none() && self.state == StreamState::Expired {
            self.rerun(&registration(&publish), now);
            self.node = None;
        }
        if let Some(ended) = &self.ended {
            return Published::EndedBefore(Ended::clone(ended));
        }
        if self.node.is_some() || self.state != StreamState::Active {
            return Published::Conflict;
        }
        let outcome = self.take_published(&publish, now);
        if let Some(key) = publish.idempotency_key {
            let id = match &outcome {
                Published::Ended(ended) => ended.id,
                _ => self.log.top(),
            };
            self.keys.get_or_insert_default().remember(key, id);
        }
        outcome
    }

    fn take_published(&mut self, publish: &Publish, now: u64) -> Published {
        // Senders may give the stream different lifetimes. The longest counts.
        self.retention.lifetime = self.retention.lifetime.max(publish.retention.lifetime);
        self.beat(now, 0);
        if let Some(state) = publish.ends {
            let ending = Ending::with_event(state, publish.block.clone());
            return Published::Ended(self.end(ending, None, publish.hook, now));
        }
        let id = EventId::new(self.epoch, self.log.top().seq + 1);
        let event = [&*publish.block, id.to_string().as_bytes(), &*publish.after_id].concat();
        self.log.put(id, Frame { count: 1, bytes: Bytes::from(event) }, now, &self.retention);
        self.trim();
        Published::Stored(id)
    }
}

/// The registration that stands for a publisher without one.
fn registration(publish: &Publish) -> Open {
    Open {
        key: publish.key.clone(),
        kind: publish.kind.clone(),
        origin: Origin::Published,
        node: NodeId::new(""),
        token: 0,
        create: true,
        reruns: false,
        started: true,
        fingerprint: None,
        limit: None,
        metadata: Metadata::new(),
        voice: Voice::default(),
        turn: None,
        headers: KeptHeaders::None,
        retention: publish.retention,
    }
}
