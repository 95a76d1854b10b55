//! Sending commands to the masters of their slots, and on to where they are redirected.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis::{Pipeline, ServerErrorKind};
use tokio::time::timeout;

use super::super::{
    error::RedisStoreError,
    link::Link,
    request::{Reply, Request, server_error},
    value,
};
use super::{
    table::Masters,
    together::{EACH, together},
};
use crate::runtime::sync::{all, lock};

/// How often a command is sent: it follows redirections, and is repeated while its slot moves.
const TRIES: u32 = 6;
/// How long a command waits before it is repeated while its slot moves.
const ON_ITS_WAY: Duration = Duration::from_millis(10);

/// What to do with a command after its reply.
enum Next {
    Done,
    Again,
    /// Send it to the node that its slot is moving to, after `ASKING`.
    AskAt(Link),
    Later,
}

impl Masters {
    /// Connects to every master.
    pub(in super::super) async fn reach(self: &Arc<Self>) -> Result<(), RedisStoreError> {
        self.refresh_if_stale().await?;
        let masters = self.masters();
        let connected = all(masters.iter().map(|link| async move {
            let connected = timeout(EACH, link.connect()).await;
            connected.unwrap_or_else(|_| Err(RedisStoreError::slow(link.address())))
        }));
        let reached: Result<(), _> = connected.await.into_iter().collect();
        if reached.is_err() {
            self.stale.store(true, Ordering::Relaxed);
        }
        reached
    }

    pub(in super::super) async fn send(
        self: &Arc<Self>,
        mut requests: Vec<Request>,
    ) -> Result<Vec<Reply>, RedisStoreError> {
        self.refresh_if_stale().await?;
        let mut replies: Vec<Option<Reply>> = requests.iter().map(|_| None).collect();
        let mut open: Vec<(usize, Option<Link>)> = (0..requests.len()).map(|index| (index, None)).collect();
        for attempt in 0..TRIES {
            let outcomes = self.round(&requests, &open).await;
            open.clear();
            let mut waits = false;
            for (index, reply) in outcomes {
                match self.next_step(&reply, &mut requests[index]) {
                    Next::Done => {}
                    Next::Again => open.push((index, None)),
                    Next::AskAt(link) => open.push((index, Some(link))),
                    Next::Later => {
                        waits = true;
                        open.push((index, None));
                    }
                }
                replies[index] = Some(reply);
            }
            if open.is_empty() {
                break;
            }
            if waits {
                tokio::time::sleep(ON_ITS_WAY * (attempt + 1)).await;
            }
            if self.stale.load(Ordering::Relaxed) {
                // If that fails, the replies of the commands say why.
                let _ = self.refresh().await;
            }
        }
        Ok(replies.into_iter().map(|reply| reply.unwrap_or_else(|| Err(value::unexpected("a command")))).collect())
    }

    /// Sends each open command once: to all masters at the same time, with one pipeline for each.
    async fn round(&self, requests: &[Request], open: &[(usize, Option<Link>)]) -> Vec<(usize, Reply)> {
        let mut outcomes = Vec::with_capacity(open.len());
        let mut flights: Vec<(Link, Vec<(usize, bool)>)> = Vec::new();
        for (index, target) in open {
            let asking = target.is_some();
            let Some(link) = target.clone().or_else(|| self.link(requests[*index].slot)) else {
                self.stale.store(true, Ordering::Relaxed);
                outcomes.push((*index, Err(RedisStoreError::uncovered(requests[*index].slot))));
                continue;
            };
            match flights.iter_mut().find(|(held, _)| held.is(&link)) {
                Some((_, flight)) => flight.push((*index, asking)),
                None => flights.push((link, vec![(*index, asking)])),
            }
        }
        let links: Vec<Link> = flights.iter().map(|(link, _)| link.clone()).collect();
        let flown = together(flights.iter().map(|(link, flight)| send_to_master(link, requests, flight))).await;
        for (((_, flight), link), replies) in flights.into_iter().zip(links).zip(flown) {
            match replies.unwrap_or_else(|| Err(RedisStoreError::slow(link.address()))) {
                Ok(replies) => outcomes.extend(flight.into_iter().map(|(index, _)| index).zip(replies)),
                Err(error) => {
                    // Its slots may have another master now.
                    self.stale.store(true, Ordering::Relaxed);
                    outcomes.extend(flight.into_iter().map(|(index, _)| (index, Err(error.clone()))));
                }
            }
        }
        outcomes
    }

    fn next_step(self: &Arc<Self>, reply: &Reply, request: &mut Request) -> Next {
        let Err(error) = reply else { return Next::Done };
        let Some(error) = error.as_redis() else { return Next::Done };
        let redis::ErrorKind::Server(kind) = error.kind() else { return Next::Done };
        match kind {
            ServerErrorKind::NoScript if request.spell_out() => Next::Again,
            ServerErrorKind::Moved => {
                self.stale.store(true, Ordering::Relaxed);
                if let Some(link) = error.redirect_node().and_then(|(address, _)| self.link_to(address)) {
                    lock(&self.map).assign(request.slot, link);
                }
                Next::Again
            }
            ServerErrorKind::Ask => match error.redirect_node().and_then(|(address, _)| self.link_to(address)) {
                Some(link) => Next::AskAt(link),
                None => Next::Later,
            },
            ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown | ServerErrorKind::ReadOnly => {
                self.stale.store(true, Ordering::Relaxed);
                Next::Later
            }
            _ => Next::Done,
        }
    }
}

async fn send_to_master(
    link: &Link,
    requests: &[Request],
    flight: &[(usize, bool)],
) -> Result<Vec<Reply>, RedisStoreError> {
    let mut commands = Pipeline::with_capacity(flight.len());
    for (index, asking) in flight {
        if *asking {
            // It applies to the next command only.
            commands.cmd("ASKING");
        }
        commands.add_command(requests[*index].command());
    }
    let Some((first, _)) = flight.first() else { return Ok(Vec::new()) };
    let mut replies = requests[*first].send_flight(link, &commands).await?.into_iter();
    let reply = |(_, asking): &(usize, bool)| {
        if *asking {
            replies.next();
        }
        server_error(link, replies.next().unwrap_or_default())
    };
    Ok(flight.iter().map(reply).collect())
}
