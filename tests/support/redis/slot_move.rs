//! The move of a slot from one master to another, step by step, as `redis-cli --cluster reshard` does it.

use super::RedisServer;

/// The most keys in one `MIGRATE`. Few, because `MIGRATE` blocks both servers.
const BATCH: usize = 10;

/// An unfinished move of a slot. The old owner serves the keys that it still has, and redirects clients with `ASK` for
/// all others.
///
/// Dropping the value leaves the move unfinished.
#[must_use = "the move stays unfinished until `finish`"]
pub struct SlotMove<'a> {
    slot: String,
    from: &'a RedisServer,
    to: &'a RedisServer,
    masters: Vec<&'a RedisServer>,
}

impl<'a> SlotMove<'a> {
    pub(super) fn begin(slot: u16, from: &'a RedisServer, to: &'a RedisServer, masters: Vec<&'a RedisServer>) -> Self {
        let slot = slot.to_string();
        // The new owner first: it must be ready before the old owner redirects a client to it.
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
        Self { slot, from, to, masters }
    }

    /// Returns the number of keys that the old owner still has.
    pub fn left(&self) -> usize {
        self.from.ask(&["CLUSTER", "COUNTKEYSINSLOT", &self.slot])
    }

    /// Moves up to `keys` keys. Returns `false` if none was left.
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

    /// Moves half of the remaining keys, rounded up.
    pub fn advance_half(&self) {
        self.advance(self.left().div_ceil(2));
    }

    /// Moves the remaining keys and tells all masters the new owner.
    pub fn finish(self) {
        while self.advance(BATCH) {}
        let owner = id(self.to);
        // The new owner first: if a later command failed, the slot would otherwise have no owner.
        let rest = self.masters.iter().filter(|node| node.port() != self.to.port());
        for node in std::iter::once(&self.to).chain(rest) {
            node.command(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &owner]);
        }
    }
}

fn id(node: &RedisServer) -> String {
    node.ask(&["CLUSTER", "MYID"])
}
