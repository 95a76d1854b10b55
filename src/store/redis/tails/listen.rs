//! The listening connection: to the channels of all streams that somebody waits for, and of this process's nodes.

use std::{
    collections::HashSet,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use redis::{Value, aio::MultiplexedConnection, cmd};
use tokio::time::Instant;

use super::{
    super::{Shared, error::RedisStoreError, fleet::Request, link::Watch as _},
    ANSWER, PAGE,
    net::{NET, draw_net},
};
use crate::{protocol::backoff::Backoff, sync::lock};

/// A listening connection that lasted for so long was worth making.
const PROVEN: Duration = Duration::from_secs(5);
/// Channels in one request.
const CHANNELS: usize = 1000;

/// Listens for as long as the store lives.
pub(in super::super) async fn listen(shared: Weak<Shared>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let mut before = false;
    loop {
        let Some(store) = shared.upgrade() else { return };
        let connected = connect(&store).await;
        drop(store);
        match connected {
            Ok(connection) => {
                let again = std::mem::replace(&mut before, true);
                if let Some(store) = shared.upgrade() {
                    // Messages from before were missed.
                    store.tails.wake_all();
                    if again {
                        store.tails.reconnected();
                    }
                }
                let since = Instant::now();
                attend(&shared, connection).await;
                if since.elapsed() >= PROVEN {
                    backoff.succeeded();
                }
            }
            Err(error) => crate::telemetry::log_debug!(error = %error, "changes cannot be listened for"),
        }
        tokio::time::sleep(backoff.failed(crate::random::u128() as u64)).await;
    }
}

/// A new connection, which listens to all that is waited for.
async fn connect(store: &Arc<Shared>) -> Result<MultiplexedConnection, RedisStoreError> {
    let link = store.fleet.any()?;
    let tails = Arc::downgrade(&store.tails);
    let hear = move |push| {
        if let Some(tails) = tails.upgrade() {
            tails.heard(push);
        }
    };
    store.tails.wanted.lost.store(false, Ordering::Relaxed);
    let mut connection = link.subscriber(hear).await?;
    // Asked for from here on, or among those that are read next.
    lock(&store.tails.wanted.channels).clear();
    let channels = store.tails.channels();
    subscribe(&mut connection, &channels).await.ok_or_else(|| RedisStoreError::slow(link.address()))?;
    Ok(connection)
}

/// `None`: it did not work, or not in time.
async fn subscribe(connection: &mut MultiplexedConnection, channels: &[String]) -> Option<()> {
    for page in channels.chunks(CHANNELS) {
        tokio::time::timeout(ANSWER, connection.subscribe(page)).await.ok()?.ok()?;
    }
    Some(())
}

/// Uses a listening connection until it is of no more use.
async fn attend(shared: &Weak<Shared>, mut connection: MultiplexedConnection) {
    let mut next = Instant::now();
    let Some(wanted) = shared.upgrade().map(|store| Arc::clone(&store.tails.wanted)) else { return };
    loop {
        let _ = tokio::time::timeout_at(next, wanted.wake.notified()).await;
        let Some(store) = shared.upgrade() else { return };
        if wanted.lost.load(Ordering::Relaxed) || !serve(&store, &mut connection).await {
            return;
        }
        // However often there is something to do.
        if Instant::now() >= next {
            next = Instant::now() + NET;
            if !answers(&mut connection).await {
                return;
            }
        }
    }
}

/// Whether the connection is alive in both directions.
async fn answers(connection: &mut MultiplexedConnection) -> bool {
    let ping = tokio::time::timeout(ANSWER, cmd("PING").query_async::<Value>(connection)).await;
    matches!(ping, Ok(Ok(_)))
}

/// Does what there is to do. `false`: the connection is of no more use.
async fn serve(store: &Arc<Shared>, connection: &mut MultiplexedConnection) -> bool {
    let tails = &store.tails;
    let asked = std::mem::take(&mut *lock(&tails.wanted.channels));
    let (listened, left): (Vec<_>, Vec<_>) = asked.into_iter().partition(|channel| tails.wants(channel));
    if subscribe(connection, &listened).await.is_none() {
        return false;
    }
    if !left.is_empty() && !matches!(tokio::time::timeout(ANSWER, connection.unsubscribe(left)).await, Ok(Ok(()))) {
        return false;
    }
    let names: HashSet<_> = listened.iter().filter_map(|channel| tails.keys.tail_of(channel)).collect();
    // Messages from before the subscription were missed.
    tails.wake_each(names.iter().copied());
    announce(store).await;
    if !names.is_empty() {
        let mut new = tails.awaited(|_| true);
        new.retain(|(name, _)| names.contains(&**name));
        draw_net(store, &new).await;
    }
    true
}

/// Publishes for those who have just begun to follow.
async fn announce(store: &Arc<Shared>) {
    let names = std::mem::take(&mut *lock(&store.tails.wanted.announcements));
    let message = |name: &String| {
        let mut publish = cmd("PUBLISH");
        publish.arg(store.keys.tail_channel(name)).arg("followed");
        Request::new(store.keys.slot(name), publish)
    };
    for page in names.chunks(PAGE) {
        store.tell(page.iter().map(message).collect()).await;
    }
}
