//! Stateless publishing: events without a standing producer.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Entry;
use crate::{
    model::{
        id::{EventId, NodeId},
        kept::KeptHeaders,
        metadata::Metadata,
        stream::{Ended, Ending, Frame, Origin, StreamState},
        voice::Voice,
    },
    store::{Open, Publish, Published},
};

/// How many of the newest idempotency keys a published stream remembers.
const KEYS_REMEMBERED: usize = 1024;

/// Idempotency keys, and the ids of the events that came with them: the newest last.
pub(super) type Remembered = VecDeque<(String, EventId)>;

impl Entry {
    pub(in super::super) fn publish(&mut self, publish: Publish, now: u64) -> Published {
        if let Some(key) = &publish.idempotency_key
            && let Some((_, id)) =
                self.published.iter().flat_map(|published| published.iter()).find(|(held, _)| held == key)
        {
            return match &self.ended {
                Some(ended) if ended.id == *id => Published::Ended(Ended::clone(ended)),
                _ => Published::Stored(*id),
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
            let published = self.published.get_or_insert_default();
            published.push_back((key, id));
            if published.len() > KEYS_REMEMBERED {
                published.pop_front();
            }
        }
        outcome
    }

    fn take_published(&mut self, publish: &Publish, now: u64) -> Published {
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
pub(super) fn registration(publish: &Publish) -> Open {
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
