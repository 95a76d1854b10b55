//! A slot on its way from one master to another, as `redis-cli --cluster reshard` does it.

use super::RedisServer;

/// So few keys in one `MIGRATE`, which blocks both servers.
const BATCH: usize = 10;

/// A slot on the move: the old owner has the keys that did not go yet, and sends clients on with `ASK` for the rest.
///
/// Dropped before its end, it stays so.
#[must_use = "the slot is on the move until `finish`"]
pub struct SlotMove<'a> {
    slot: String,
    from: &'a RedisServer,
    to: &'a RedisServer,
    masters: Vec<&'a RedisServer>,
}

impl<'a> SlotMove<'a> {
    pub(super) fn begin(slot: u16, from: &'a RedisServer, to: &'a RedisServer, masters: Vec<&'a RedisServer>) -> Self {
        let slot = slot.to_string();
        // In this order: a client must find the new owner ready when the old one sends it there.
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
        Self { slot, from, to, masters }
    }

    /// How many keys did not go yet.
    pub fn left(&self) -> usize {
        self.from.ask(&["CLUSTER", "COUNTKEYSINSLOT", &self.slot])
    }

    /// Moves about so many keys; `false` where none is left.
    pub fn advance(&self, keys: usize) -> bool {
        let keys: Vec<String> = self.from.ask(&["CLUSTER", "GETKEYSINSLOT", &self.slot, &keys.to_string()]);
        if keys.is_empty() {
            return false;
        }
        let port = self.to.port().to_string();
        let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        command.extend(keys.iter().map(String::as_str));
        self.from.command(&command);
        true
    }

    /// Moves half of the keys, at least one.
    pub fn advance_half(&self) {
        self.advance(self.left().div_ceil(2));
    }

    /// Moves the rest, and tells all masters who has the slot now.
    pub fn finish(self) {
        while self.advance(BATCH) {}
        let owner = id(self.to);
        // The new owner first, or a failure in between would leave the slot to nobody.
        let rest = self.masters.iter().filter(|node| node.port() != self.to.port());
        for node in std::iter::once(&self.to).chain(rest) {
            node.command(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &owner]);
        }
    }
}

fn id(node: &RedisServer) -> String {
    node.ask(&["CLUSTER", "MYID"])
}
