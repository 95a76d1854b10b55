//! A Cluster's nodes and slots, as one node reports them.

use std::{collections::BTreeMap, ops::RangeInclusive};

use super::RedisServer;

/// The reply to `CLUSTER NODES`.
pub(super) struct View(Vec<Node>);

pub(super) struct Node {
    pub(super) id: String,
    pub(super) port: u16,
    pub(super) slots: Vec<RangeInclusive<u16>>,
    is_healthy: bool,
}

impl View {
    /// Asks a node for its view. Returns `None` if the node does not answer.
    pub(super) fn of(node: &RedisServer) -> Option<Self> {
        let text: String = node.try_ask(&["CLUSTER", "NODES"]).ok()?;
        text.lines().map(Node::parse).collect::<Option<_>>().map(Self)
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&Node> {
        self.0.iter().find(|node| node.slots.iter().any(|range| range.contains(&slot)))
    }

    /// Returns whether the asked node has met the node at this port and does not consider it failed.
    pub(super) fn knows(&self, port: u16) -> bool {
        self.0.iter().any(|node| node.port == port && node.is_healthy)
    }

    /// Returns the ranges of slots with their owners, for comparison with another node's view.
    pub(super) fn owners(&self) -> BTreeMap<u16, (u16, &str)> {
        let ranges = self.0.iter().flat_map(|node| node.slots.iter().map(move |range| (node, range)));
        ranges.map(|(node, range)| (*range.start(), (*range.end(), node.id.as_str()))).collect()
    }
}

impl Node {
    /// Parses `<id> <ip:port@bus> <flags> <master> <ping> <pong> <epoch> <link> <slot> <slot>...`.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let (address, _) = words.get(1)?.split_once('@')?;
        let (_, port) = address.rsplit_once(':')?;
        let is_healthy = !words[2].split(',').any(|flag| matches!(flag, "handshake" | "noaddr" | "fail" | "fail?"));
        Some(Self {
            id: words[0].to_owned(),
            port: port.parse().ok()?,
            // Skip the extra entry in brackets of a slot that is being moved.
            slots: words
                .get(8..)?
                .iter()
                .filter(|word| !word.starts_with('['))
                .map(|word| range(word))
                .collect::<Option<_>>()?,
            is_healthy,
        })
    }
}

fn range(word: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some(first.parse().ok()?..=last.parse().ok()?)
}
