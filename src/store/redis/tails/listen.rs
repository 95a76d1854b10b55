//! The listening connection. It subscribes to the channel of each stream that a follower waits for, and of each node of
//! this process.

use std::{
    collections::HashSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection, cmd};
use tokio::{sync::oneshot, time::Instant};

use super::super::{
    error::RedisStoreError,
    link::{Link, Watch as _, spread},
    shared::Shared,
    source::Connected,
};
use super::pace::{ANSWER, NET};
use crate::{protocol::backoff::Backoff, runtime::sync::lock};

/// A listening connection that lasted this long counts as a success for the backoff.
const PROVEN: Duration = Duration::from_secs(5);
/// How many channels one request names.
const CHANNELS: usize = 1000;

/// Listens for as long as the store lives. `tried` gets a message after the first attempt to connect.
pub(in super::super) async fn listen(shared: Weak<Shared>, tried: oneshot::Sender<()>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let mut tried = Some(tried);
    let mut before = false;
    loop {
        let Some(store) = shared.upgrade() else { return };
        let connected = Listener::connect(&store).await;
        drop(store);
        if let Some(tried) = tried.take() {
            // The caller of `connect` may have given up.
            let _ = tried.send(());
        }
        match connected {
            Ok(listener) => {
                let again = std::mem::replace(&mut before, true);
                if let Some(store) = shared.upgrade() {
                    // Earlier messages may have been missed.
                    store.tails.wake_all();
                    if again {
                        store.tails.reconnected();
                    }
                }
                let since = Instant::now();
                let silent = listener.serve_until_closed(&shared).await;
                if let Some(store) = shared.upgrade() {
                    store.tails.followed.disconnected();
                }
                if since.elapsed() >= PROVEN {
                    backoff.succeeded();
                }
                if silent {
                    tokio::time::sleep(spread()).await;
                }
            }
            Err(error) => crate::telemetry::log_debug!(error = %error, "changes cannot be listened for"),
        }
        tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
    }
}

/// The listening connection, and the server that it leads to.
struct Listener {
    connection: MultiplexedConnection,
    link: Link,
    /// The run id of that server, and the one that the link to it had when this connection was made.
    run: Arc<str>,
    run_of_link: Arc<str>,
    /// The number of the connection, counted in this process.
    number: u64,
    /// Whether the connection is closed.
    closed: Arc<AtomicBool>,
    /// Whether the server did not answer a ping in time.
    silent: Arc<AtomicBool>,
}

impl Listener {
    /// Connects, and subscribes to all wanted channels.
    async fn connect(store: &Arc<Shared>) -> Result<Self, RedisStoreError> {
        let link = store.fleet.any()?;
        let run_of_link = link.run();
        let closed = Arc::new(AtomicBool::new(false));
        let (tails, is_closed) = (Arc::downgrade(&store.tails), Arc::clone(&closed));
        let on_push = move |push: PushInfo| {
            let Some(tails) = tails.upgrade() else { return };
            if push.kind == PushKind::Disconnection {
                is_closed.store(true, Ordering::Relaxed);
                tails.wanted.wake.notify_one();
            } else {
                tails.receive(push);
            }
        };
        let Connected { mut connection, run } = link.subscriber(on_push).await?;
        // Clear before taking the list: a channel that is added after this line is in this list or in the next one.
        lock(&store.tails.wanted.channels).clear();
        let channels = store.tails.channels();
        subscribe(&mut connection, &channels).await.ok_or_else(|| RedisStoreError::slow(link.address()))?;
        let number = store.tails.followed.connected();
        Ok(Self { connection, link, run, run_of_link, number, closed, silent: Arc::default() })
    }

    /// Whether the connection leads to a server that the store still uses. The address may lead to another server now, while the
    /// old one still runs but gets no messages.
    fn is_current(&self, store: &Shared) -> bool {
        let run = self.link.run();
        store.fleet.uses(&self.link) && (run == self.run || run == self.run_of_link)
    }

    /// Keeps the subscriptions up to date until the connection is useless. Returns `true` if the server stopped answering.
    async fn serve_until_closed(mut self, shared: &Weak<Shared>) -> bool {
        let mut next = Instant::now();
        let Some(wanted) = shared.upgrade().map(|store| Arc::clone(&store.tails.wanted)) else { return false };
        loop {
            let _ = tokio::time::timeout_at(next, wanted.wake.notified()).await;
            let Some(store) = shared.upgrade() else { return false };
            if self.silent.load(Ordering::Relaxed) {
                return true;
            }
            if self.closed.load(Ordering::Relaxed)
                || !self.is_current(&store)
                || !self.update_subscriptions(&store).await
            {
                return false;
            }
            // The task may be woken more often than once per `NET`, but it pings only that often.
            if Instant::now() >= next {
                next = Instant::now() + NET;
                self.begin_ping(&store);
            }
        }
    }

    /// Checks in a task that the connection works in both directions. The subscriptions must not wait for that.
    fn begin_ping(&self, store: &Shared) {
        let (mut connection, silent) = (self.connection.clone(), Arc::clone(&self.silent));
        let (tails, number) = (Arc::clone(&store.tails), self.number);
        tokio::spawn(async move {
            let ping = tokio::time::timeout(ANSWER, cmd("PING").query_async::<Value>(&mut connection)).await;
            if matches!(ping, Ok(Ok(_))) {
                tails.followed.confirm(number);
            } else {
                silent.store(true, Ordering::Relaxed);
                tails.wanted.wake.notify_one();
            }
        });
    }

    /// Subscribes to new channels, and leaves the channels that nobody waits for. Returns `false` if the connection is
    /// useless.
    async fn update_subscriptions(&mut self, store: &Arc<Shared>) -> bool {
        let tails = &store.tails;
        let asked = std::mem::take(&mut *lock(&tails.wanted.channels));
        let (listened, left): (Vec<_>, Vec<_>) = asked.into_iter().partition(|channel| tails.wants(channel));
        if subscribe(&mut self.connection, &listened).await.is_none() {
            return false;
        }
        let names: HashSet<_> = listened.iter().filter_map(|channel| tails.keys.tail_of(channel)).collect();
        // Messages from before the subscription may have been missed.
        tails.wake_each(names.iter().copied());
        tails.queue_announcements(names.iter().copied());
        let left = async { left.is_empty() || self.connection.unsubscribe(left).await.is_ok() };
        tokio::time::timeout(ANSWER, left).await.unwrap_or(false)
    }
}

/// Subscribes to channels. Returns `None` if that failed or took too long.
async fn subscribe(connection: &mut MultiplexedConnection, channels: &[String]) -> Option<()> {
    for page in channels.chunks(CHANNELS) {
        tokio::time::timeout(ANSWER, connection.subscribe(page)).await.ok()?.ok()?;
    }
    Some(())
}
