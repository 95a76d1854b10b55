//! The net: looks now and then at what is waited for, since messages may be lost; and tells other nodes what is followed here.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use redis::cmd;
use tokio::time::Instant;

use super::{
    super::{Shared, error::RedisStoreError, fleet::Request, keys, stored, value},
    ANSWER, ASK_EVERY, PAGE, Stream,
};
use crate::{
    id::{NodeId, StreamKey},
    sync::lock,
};

/// How often the net is drawn; a lost message is made up for within twice this.
pub(super) const NET: Duration = Duration::from_secs(1);
/// How seldom the net is drawn through streams that are produced here: once in so many times.
const SELDOM: u64 = 8;

/// Draws the net for as long as the store lives, whether or not anything can be listened for.
pub(in super::super) async fn watch(shared: Weak<Shared>) {
    let mut round = 0;
    loop {
        tokio::time::sleep(NET).await;
        let Some(store) = shared.upgrade() else { return };
        round += 1;
        store.tails.tidy();
        // Events that are made here are heard of without Redis. Only changes that others made may have been missed.
        let awaited = store.tails.awaited(|stream| round % SELDOM == 0 || !lock(&stream.seen).local);
        draw_net(&store, &awaited).await;
        tell_again(&store).await;
        say_farewell(&store).await;
    }
}

impl Shared {
    /// Tells the node that produces a stream that it is followed here.
    pub(in super::super) async fn announce(&self, key: StreamKey) -> Result<(), RedisStoreError> {
        let name = keys::name_of(&key);
        let node = value::text(self.fleet.ask(self.tails.announcing(&name)).await?);
        self.tails.announced(&name, node.unwrap_or_default());
        Ok(())
    }
}

/// Announces again the streams whose followers here are busy with a page.
async fn tell_again(store: &Arc<Shared>) {
    for page in store.tails.due_for_telling().chunks(PAGE) {
        let told = page.iter().map(|name| store.tails.announcing(name)).collect();
        let Ok(Ok(replies)) = tokio::time::timeout(ANSWER, store.fleet.send(told)).await else { continue };
        for (name, reply) in page.iter().zip(replies) {
            // One that could not be told is told the next time.
            if let Ok(reply) = reply {
                store.tails.announced(name, value::text(reply).unwrap_or_default());
            }
        }
    }
}

/// Tells producing nodes what nobody here follows any more. Where that is lost, they find out by the silence.
async fn say_farewell(store: &Arc<Shared>) {
    let farewells = std::mem::take(&mut *lock(&store.tails.wanted.farewells));
    let message = |(node, name): &(String, String)| {
        let mut publish = cmd("PUBLISH");
        publish.arg(store.tails.keys.node_channel(node)).arg(store.tails.word("left", name));
        Request::new(store.keys.slot(name), publish)
    };
    for page in farewells.chunks(PAGE) {
        store.tell(page.iter().map(message).collect()).await;
    }
}

/// Looks for changes of the awaited streams whose messages were lost, and announces their followers to the producing nodes.
pub(super) async fn draw_net(store: &Arc<Shared>, awaited: &[(String, Arc<Stream>)]) {
    for page in awaited.chunks(PAGE) {
        let mut requests = Vec::with_capacity(2 * page.len());
        for (name, stream) in page {
            let slot = store.keys.slot(name);
            let mut standing = cmd("HMGET");
            standing.arg(store.keys.stream(name)).arg(&["state", "epoch", "node"]);
            let mut newest = cmd("XREVRANGE");
            let after = lock(&stream.seen).top.as_ref().map_or("-".to_owned(), |top| format!("({top}"));
            newest.arg(store.keys.log(name)).arg("+").arg(after).arg("COUNT").arg(1);
            requests.push(Request::new(slot, standing));
            requests.push(Request::new(slot, newest));
        }
        let Ok(Ok(replies)) = tokio::time::timeout(ANSWER, store.fleet.send(requests)).await else { continue };
        let mut replies = replies.into_iter();
        let mut asks = Vec::new();
        for (name, stream) in page {
            let (Some(Ok(standing)), Some(newest)) = (replies.next(), replies.next()) else { continue };
            let mut standing = value::array(standing, "HMGET").unwrap_or_default().into_iter().map(value::text);
            let mut part = || standing.next().flatten().unwrap_or_default();
            let (standing, node) = ((part(), part()), part());
            let top = newest.ok().and_then(|newest| stored::entries(newest).ok()).unwrap_or_default();
            let top = top.first().map(|entry| entry.id.to_pair());
            if stream.look(standing, top) {
                stream.cell.notify();
            }
            if stream.must_ask(store, &node) {
                let mut ask = cmd("PUBLISH");
                ask.arg(store.keys.node_channel(&node)).arg(store.tails.word("tail", name));
                asks.push(Request::new(store.keys.slot(name), ask));
            }
        }
        store.tell(asks).await;
    }
}

impl Stream {
    /// Takes what the net saw. Returns whether that is news.
    fn look(&self, standing: (String, String), top: Option<String>) -> bool {
        let mut seen = lock(&self.seen);
        let news = top.is_some() || seen.standing.as_ref().is_some_and(|before| *before != standing);
        if standing.0.is_empty() {
            seen.top = None;
        }
        if top.is_some() {
            seen.top = top;
        }
        seen.standing = Some(standing);
        news
    }

    /// Whether it is time to tell the producing node that the stream is followed here.
    fn must_ask(&self, store: &Shared, node: &str) -> bool {
        let local = lock(&store.tails.nodes).contains_key(&NodeId::new(node));
        let mut seen = lock(&self.seen);
        seen.local = local;
        if node.is_empty() || local {
            return false;
        }
        let due = seen.asked.as_ref().is_none_or(|(asked, at)| asked != node || at.elapsed() >= ASK_EVERY);
        if due {
            seen.asked = Some((node.to_owned(), Instant::now()));
        }
        due
    }
}
