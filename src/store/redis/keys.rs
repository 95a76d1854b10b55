//! The names of keys and channels, and the slots that they lie in.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::model::id::{NodeId, Owner, StreamId, StreamKey};

/// Slots of a Redis Cluster (Redis Cluster specification, "Key distribution model").
pub(super) const SLOTS: u16 = 16_384;

/// The number of parts of the indexes in a cluster. They are divided so that no master has all of them.
pub(super) const PARTS: u16 = 16;

/// Makes the names of keys and channels, all with one prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: Arc<str>,
    cluster: bool,
}

/// The keys of one stream, all in one slot.
pub(super) struct StreamKeys {
    /// `id`, or `owner/id` with the owner in base64url.
    pub(super) name: String,
    pub(super) slot: u16,
    pub(super) stream: String,
    pub(super) log: String,
    pub(super) completion: String,
}

impl Keys {
    pub(super) fn new(prefix: &str, cluster: bool) -> Self {
        Self { prefix: prefix.into(), cluster }
    }

    pub(super) fn of(&self, key: &StreamKey) -> StreamKeys {
        let (prefix, name) = (&self.prefix, name_of(key));
        StreamKeys {
            slot: self.slot(&name),
            stream: format!("{prefix}stream:{{{name}}}"),
            log: format!("{prefix}events:{{{name}}}"),
            completion: format!("{prefix}completion:{{{name}}}"),
            name,
        }
    }

    /// The slot of a stream's keys. Outside of a cluster it is 0, since one server has all slots.
    pub(super) fn slot(&self, name: &str) -> u16 {
        if self.cluster { slot(name.as_bytes()) } else { 0 }
    }

    pub(super) fn stream(&self, name: &str) -> String {
        format!("{}stream:{{{name}}}", self.prefix)
    }

    /// The key of the log, which is all that the hot path needs.
    pub(super) fn log(&self, name: &str) -> String {
        format!("{}events:{{{name}}}", self.prefix)
    }

    /// The idempotency keys of a published stream.
    pub(super) fn sent(&self, keys: &StreamKeys) -> String {
        format!("{}sent:{{{}}}", self.prefix, keys.name)
    }

    /// A conversation's pointer.
    pub(super) fn conversation(&self, name: &str) -> String {
        format!("{}conversation:{{{name}}}", self.prefix)
    }

    /// The part of the indexes that a stream is in.
    pub(super) fn part(&self, slot: u16) -> u16 {
        slot % PARTS
    }

    /// All parts of the indexes.
    pub(super) fn parts(&self) -> std::ops::Range<u16> {
        0..if self.cluster { PARTS } else { 1 }
    }

    pub(super) fn active(&self, part: u16) -> String {
        self.parted("active", part)
    }

    /// The leases of a part of the index of active streams.
    pub(super) fn leases(&self, part: u16) -> String {
        self.parted("leases", part)
    }

    /// The index of streams with a due hook or an ended lifetime, which a guardian must look after.
    pub(super) fn due(&self, part: u16) -> String {
        self.parted("due", part)
    }

    fn parted(&self, index: &str, part: u16) -> String {
        let prefix = &self.prefix;
        if self.cluster { format!("{prefix}{index}:{{p{part:02}}}") } else { format!("{prefix}{index}") }
    }

    /// The own key of a guardian. Two processes with the same node name have different keys.
    pub(super) fn node(&self, node: &NodeId, process: &str, part: u16) -> String {
        let prefix = &self.prefix;
        let tag = if self.cluster { format!("{{p{part:02}}}:") } else { String::new() };
        format!("{prefix}node:{tag}{node}:{process}")
    }

    /// The slot of a part of the indexes.
    pub(super) fn part_slot(&self, part: u16) -> u16 {
        if self.cluster { slot(format!("p{part:02}").as_bytes()) } else { 0 }
    }

    pub(super) fn owner(&self, owner: &Owner) -> (u16, String) {
        let name = encode(owner);
        let key = format!("{}user:{{{name}}}:streams", self.prefix);
        // Empty braces are no hash tag.
        let slot = if name.is_empty() { slot(key.as_bytes()) } else { slot(name.as_bytes()) };
        (slot, key)
    }

    /// The channel that followers of a stream listen to.
    pub(super) fn tail_channel(&self, name: &str) -> String {
        format!("{}tail:{name}", self.prefix)
    }

    /// The stream whose followers listen to this channel.
    pub(super) fn tail_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&*self.prefix)?.strip_prefix("tail:")
    }

    /// The channel that a node listens to.
    pub(super) fn node_channel(&self, node: &str) -> String {
        format!("{}node:{node}", self.prefix)
    }

    pub(super) fn node_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&*self.prefix)?.strip_prefix("node:")
    }
}

fn encode(owner: &Owner) -> String {
    owner.name().map(|name| URL_SAFE_NO_PAD.encode(name)).unwrap_or_default()
}

/// `id`, or `owner/id`: neither holds a slash itself.
pub(super) fn name_of(key: &StreamKey) -> String {
    match key.owner.name() {
        Some(_) => format!("{}/{}", encode(&key.owner), key.id),
        None => key.id.to_string(),
    }
}

/// Reads a name back; `None` if it is none of ours.
pub(super) fn key_of(name: &str) -> Option<StreamKey> {
    let Some((owner, id)) = name.split_once('/') else {
        return Some(StreamKey::new(Owner::ANONYMOUS, StreamId::new(name).ok()?));
    };
    let owner = String::from_utf8(URL_SAFE_NO_PAD.decode(owner).ok()?).ok()?;
    Some(StreamKey::new(Owner::new(owner).ok()?, StreamId::new(id).ok()?))
}

/// The slot of a hash tag: CRC-16/XMODEM, modulo 16,384 (Redis Cluster specification, appendix A).
pub(super) fn slot(tag: &[u8]) -> u16 {
    let step = |crc: u16, byte: &u8| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 },
        )
    };
    tag.iter().fold(0, step) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(owner: Option<&str>, id: &str) -> StreamKey {
        let owner = owner.map_or(Owner::ANONYMOUS, |name| Owner::new(name).expect("valid"));
        StreamKey::new(owner, StreamId::new(id).expect("valid"))
    }

    #[test]
    fn names_are_read_back_and_never_meet() {
        let owners = [None, Some("a"), Some("a/b"), Some("a:b"), Some("{x}"), Some("é\n"), Some("YQ")];
        let mut names = std::collections::HashSet::new();
        for owner in owners {
            for id in ["a", "YQ", "a.b~_-"] {
                let key = key(owner, id);
                assert_eq!(key_of(&name_of(&key)).as_ref(), Some(&key));
                assert!(names.insert(name_of(&key)), "{key:?}");
            }
        }
        for bad in ["", "/", "a/b/c", "?/a", "YQ/", "a b"] {
            assert_eq!(key_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_streams_keys_have_one_slot() {
        // Redis Cluster specification: the check value of the CRC, and `CLUSTER KEYSLOT foo`.
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12_182);
        let keys = Keys::new("sse:", true).of(&key(Some("ada"), "chat"));
        assert_eq!(keys.stream, "sse:stream:{YWRh/chat}");
        assert_eq!(keys.slot, slot(b"YWRh/chat"));
    }

    #[test]
    fn indexes_are_parted_in_a_cluster_only() {
        let (one, many) = (Keys::new("sse:", false), Keys::new("x:", true));
        assert_eq!((one.active(one.part(77)), one.parts().len()), ("sse:active".to_owned(), 1));
        assert_eq!(many.active(many.part(33)), "x:active:{p01}");
        assert_eq!(many.node(&NodeId::new("n"), "1f", 3), "x:node:{p03}:n:1f");
    }
}
