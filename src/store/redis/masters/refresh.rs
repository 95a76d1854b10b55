//! Asking the cluster which master has which slots.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::super::{error::RedisStoreError, link::Link, request::server_error, value};
use super::table::Masters;
use crate::runtime::sync::lock;

/// The least time between two requests for the map of slots.
const REFRESH: Duration = Duration::from_millis(100);

impl Masters {
    /// Asks all known nodes which master has which slots, and takes the first answer.
    ///
    /// # Errors
    ///
    /// If no node answers.
    pub(in super::super) async fn refresh(self: &Arc<Self>) -> Result<(), RedisStoreError> {
        let mut refreshed = self.refreshing.lock().await;
        let now = Instant::now();
        if refreshed.is_some_and(|at| now - at < REFRESH) {
            return Ok(());
        }
        let mut asked = self.seeds.clone();
        asked.extend(lock(&self.map).links.values().cloned());
        let mut failed = RedisStoreError::uncovered(0);
        // All at once, so that a node that hangs does not delay the answer.
        let (send, mut replies) = tokio::sync::mpsc::channel(asked.len().max(1));
        for link in asked {
            let send = send.clone();
            tokio::spawn(async move {
                let mut slots = Pipeline::with_capacity(1);
                slots.cmd("CLUSTER").arg("SLOTS");
                let reply = link.send(&slots).await.map(|mut replies| replies.pop().unwrap_or_default());
                let _ = send.send(reply.and_then(|reply| server_error(&link, reply)).map(|reply| (link, reply))).await;
            });
        }
        drop(send);
        while let Some(reply) = replies.recv().await {
            match reply.and_then(|(link, reply)| self.read_slots(&link, reply)) {
                Ok(()) => {
                    *refreshed = Some(Instant::now());
                    self.stale.store(false, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    pub(super) async fn refresh_if_stale(self: &Arc<Self>) -> Result<(), RedisStoreError> {
        if self.stale.load(Ordering::Relaxed) || lock(&self.map).ranges.is_empty() {
            self.refresh().await?;
        }
        Ok(())
    }

    /// Reads a reply to `CLUSTER SLOTS` into the map.
    fn read_slots(&self, from: &Link, reply: Value) -> Result<(), RedisStoreError> {
        const WHAT: &str = "CLUSTER SLOTS";
        let mut ranges = Vec::new();
        for range in value::array(reply, WHAT)? {
            let mut range = value::array(range, WHAT)?.into_iter();
            let mut slot = || range.next().and_then(|slot| u16::try_from(value::number(&slot)?).ok());
            let (Some(first), Some(last)) = (slot(), slot()) else { return Err(value::unexpected(WHAT)) };
            let mut master = value::array(range.next().unwrap_or_default(), WHAT)?.into_iter();
            let host = master.next().and_then(value::text).filter(|host| !host.is_empty() && host != "?");
            let port = master.next().as_ref().and_then(value::number).ok_or_else(|| value::unexpected(WHAT))?;
            // A node that does not know its own host has the one that it was asked at.
            let host = host.unwrap_or_else(|| from.address().rsplit_once(':').map_or("", |(host, _)| host).to_owned());
            let link = self.link_to(&format!("{host}:{port}")).ok_or_else(|| value::unexpected(WHAT))?;
            ranges.push((first, last, link));
        }
        if ranges.is_empty() {
            return Err(RedisStoreError::uncovered(0));
        }
        ranges.sort_by_key(|(first, ..)| *first);
        let mut map = lock(&self.map);
        let others = |(.., link): &(u16, u16, Link)| !map.ranges.iter().any(|(.., held)| held.is(link));
        let promoted = !map.ranges.is_empty() && ranges.iter().any(others);
        // Links to nodes that are no longer masters live until their last request is done.
        map.links.retain(|_, link| ranges.iter().any(|(.., held)| held.is(link)));
        map.ranges = ranges;
        drop(map);
        if let Some(watch) = self.watch.upgrade().filter(|_| promoted) {
            // A promoted replica may lack what its master had acknowledged.
            watch.reconnected();
        }
        Ok(())
    }
}
