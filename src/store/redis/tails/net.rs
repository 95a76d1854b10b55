//! The net: asks for changes of all awaited streams, since messages may be lost.

use std::sync::{Arc, Weak};

use redis::cmd;

use super::super::{request::Request, script, shared::Shared, value};
use super::{
    announce::send_farewells,
    pace::{ANSWER, NET, PAGE},
    stream::Stream,
};
use crate::{
    model::id::{EventId, NodeId},
    runtime::sync::lock,
};

/// Streams that this process produces are asked for only once in this many rounds.
const SELDOM: u64 = 8;

/// Draws the net for as long as the store lives, whether the listening connection works or not.
pub(in super::super) async fn watch(shared: Weak<Shared>) {
    let mut round = 0;
    loop {
        tokio::time::sleep(NET).await;
        let Some(store) = shared.upgrade() else { return };
        round += 1;
        store.tails.tidy();
        // Events of a stream that this process produces wake its followers without Redis. Those followers can only miss
        // changes by other processes.
        let awaited = store.tails.awaited(|name, stream| round % SELDOM == 0 || !store.produces(name, stream.run()));
        draw_net(&store, &awaited).await;
        store.announce_each(&store.tails.due_for_announcement()).await;
        send_farewells(&store).await;
    }
}

impl Shared {
    /// Whether this process produces the run of a stream, and so writes its log. This is asked in each round, since a producer
    /// may move to another process while its followers stay.
    fn produces(&self, name: &str, run: u64) -> bool {
        lock(&self.positions).get(name).is_some_and(|position| position.epoch >= run)
    }

    /// Returns the requests for a stream's state and for the id of the newest entry in its log. They do not fetch the
    /// entry, which may be large.
    fn probe_requests(&self, name: &str, stream: &Stream) -> [Request; 2] {
        let slot = self.keys.slot(name);
        let mut standing = cmd("HMGET");
        standing.arg(self.keys.stream(name)).arg(&["state", "epoch", "node"]);
        let after = stream.top().map_or("-".to_owned(), |top| format!("({}", top.to_pair()));
        let newest = Request::script(slot, &script::NEWEST, &[&self.keys.log(name)]).arg(after);
        [Request::new(slot, standing), newest]
    }
}

/// Asks for changes of the awaited streams, and announces to the producing nodes that they are followed here.
async fn draw_net(store: &Arc<Shared>, awaited: &[(String, Arc<Stream>)]) {
    for page in awaited.chunks(PAGE) {
        let requests = page.iter().flat_map(|(name, stream)| store.probe_requests(name, stream)).collect();
        let Ok(Ok(replies)) = tokio::time::timeout(ANSWER, store.fleet.send(requests)).await else { continue };
        let mut replies = replies.into_iter();
        let mut asks = Vec::new();
        for (name, stream) in page {
            let (Some(Ok(standing)), Some(newest)) = (replies.next(), replies.next()) else { continue };
            let mut standing = value::array(standing, "HMGET").unwrap_or_default().into_iter().map(value::text);
            let mut part = || standing.next().flatten().unwrap_or_default();
            let (state, epoch, node) = (part(), part(), part());
            let top = newest.ok().and_then(value::text).and_then(|id| EventId::from_pair(&id));
            if stream.note_polled(state, epoch.parse().unwrap_or(0), top) {
                stream.cell.notify();
            }
            let is_elsewhere = !node.is_empty() && !lock(&store.tails.nodes).contains_key(&NodeId::new(&node));
            if is_elsewhere && stream.begin_announcement(&node) {
                let mut ask = cmd("PUBLISH");
                ask.arg(store.keys.node_channel(&node)).arg(store.tails.message_text("tail", name));
                asks.push(Request::new(store.keys.slot(name), ask));
            }
        }
        store.send_best_effort(asks).await;
    }
}
