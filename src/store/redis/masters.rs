//! The masters of a cluster: commands go to the master of their slot, and follow where they are sent on to.
//!
//! Own routing, since a flight then goes to each master in one go, each connection is supervised as that to a single server
//! is, and what was sent is repeated by those who know what may be repeated.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use redis::{Client, ConnectionAddr, Pipeline, ServerErrorKind, Value};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    error::RedisStoreError,
    fleet::{Reply, Request, server_error},
    keys::SLOTS,
    link::{Link, Source, Watch},
    value,
};
use crate::runtime::sync::{all, lock};

/// How often a command follows where it is sent on to, or is tried again while a slot is on its way.
const TRIES: u32 = 6;
/// How long a command of a slot on its way waits before it is tried again.
const ON_ITS_WAY: Duration = Duration::from_millis(10);
/// How long one of several masters has at least, and how long all of them have where none answers.
const EACH: Duration = Duration::from_millis(300);
const ALONE: Duration = Duration::from_secs(5);
/// The map of slots is asked for no more often than this.
const REFRESH: Duration = Duration::from_millis(100);

/// The masters of a cluster, and which slots they have.
pub(super) struct Masters {
    /// How to reach a node whose address the cluster says.
    template: Client,
    seeds: Vec<Link>,
    map: Mutex<Map>,
    refreshing: tokio::sync::Mutex<Option<Instant>>,
    stale: AtomicBool,
    watch: std::sync::Weak<dyn Watch>,
}

#[derive(Default)]
struct Map {
    links: HashMap<String, Link>,
    /// The first slot of each range, its last, and who has it.
    ranges: Vec<(u16, u16, Link)>,
}

impl Map {
    fn link(&self, slot: u16) -> Option<Link> {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, link) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then(|| link.clone())
    }
}

impl Masters {
    pub(super) fn new(clients: Vec<Client>, watch: std::sync::Weak<dyn Watch>) -> Option<Self> {
        let template = clients.first()?.clone();
        let seed = |client: Client| {
            let address = client.get_connection_info().addr().to_string();
            Link::new(&address, Source::Client(Box::new(client)), watch.clone())
        };
        Some(Self {
            template,
            seeds: clients.into_iter().map(seed).collect(),
            map: Mutex::default(),
            refreshing: tokio::sync::Mutex::new(None),
            stale: AtomicBool::new(false),
            watch,
        })
    }

    pub(super) fn link(&self, slot: u16) -> Option<Link> {
        lock(&self.map).link(slot)
    }

    /// The master of a slot, as a number; that of a slot which nobody has is another.
    pub(super) fn part(&self, slot: u16) -> u64 {
        self.link(slot).map_or(u64::MAX, |link| link.number())
    }

    pub(super) fn parts(&self) -> usize {
        self.masters().len()
    }

    /// Every master once, in the order of their slots.
    fn masters(&self) -> Vec<Link> {
        let mut masters: Vec<Link> = Vec::new();
        for (.., link) in &lock(&self.map).ranges {
            if !masters.iter().any(|held| held.is(link)) {
                masters.push(link.clone());
            }
        }
        masters
    }

    /// Whether a link is that to a master.
    pub(super) fn uses(&self, link: &Link) -> bool {
        lock(&self.map).ranges.iter().any(|(.., held)| held.is(link))
    }

    /// The runs of all masters.
    pub(super) fn runs(&self) -> String {
        let mut runs: Vec<_> = self.masters().iter().map(|link| link.run().to_string()).collect();
        // A slot that moves changes their order, and nothing else.
        runs.sort_unstable();
        runs.join(" ")
    }

    /// Connects to every master.
    pub(super) async fn reach(self: &Arc<Self>) -> Result<(), RedisStoreError> {
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

    async fn refresh_if_stale(self: &Arc<Self>) -> Result<(), RedisStoreError> {
        if self.stale.load(Ordering::Relaxed) || lock(&self.map).ranges.is_empty() {
            self.refresh().await?;
        }
        Ok(())
    }

    pub(super) fn any(&self) -> Result<Link, RedisStoreError> {
        let map = lock(&self.map);
        let random = crate::runtime::random::u128() as usize;
        let masters = map.ranges.len();
        let link = if masters > 0 { Some(map.ranges[random % masters].2.clone()) } else { None };
        link.or_else(|| self.seeds.first().cloned()).ok_or(RedisStoreError::uncovered(0))
    }

    pub(super) async fn send(self: &Arc<Self>, mut requests: Vec<Request>) -> Result<Vec<Reply>, RedisStoreError> {
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
                // Where it fails, the reply that each command has says why.
                let _ = self.refresh().await;
            }
        }
        Ok(replies.into_iter().map(|reply| reply.unwrap_or_else(|| Err(value::unexpected("a command")))).collect())
    }

    /// One attempt for each open command: all masters at the same time, what goes to one of them in one go.
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
        let flown = together(flights.iter().map(|(link, flight)| fly(link, requests, flight))).await;
        for (((_, flight), link), replies) in flights.into_iter().zip(links).zip(flown) {
            match replies.unwrap_or_else(|| Err(RedisStoreError::slow(link.address()))) {
                Ok(replies) => outcomes.extend(flight.into_iter().map(|(index, _)| index).zip(replies)),
                Err(error) => {
                    // Its slots may have another master by now.
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
                    lock(&self.map).give(request.slot, link);
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

    /// The link to a node that the cluster names.
    fn link_to(&self, address: &str) -> Option<Link> {
        let (host, port) = address.rsplit_once(':')?;
        let port = port.parse().ok()?;
        if host.is_empty() {
            return None;
        }
        let mut map = lock(&self.map);
        if let Some(link) = map.links.get(address) {
            return Some(link.clone());
        }
        let info = self.template.get_connection_info().clone();
        let addr = match info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        let client = Client::open(info.set_addr(addr)).ok()?;
        let link = Link::new(address, Source::Client(Box::new(client)), self.watch.clone());
        map.links.insert(address.to_owned(), link.clone());
        Some(link)
    }

    /// Learns which master has which slots, from whichever node answers.
    ///
    /// # Errors
    ///
    /// If none does.
    pub(super) async fn refresh(self: &Arc<Self>) -> Result<(), RedisStoreError> {
        let mut refreshed = self.refreshing.lock().await;
        let now = Instant::now();
        if refreshed.is_some_and(|at| now - at < REFRESH) {
            return Ok(());
        }
        let mut asked = self.seeds.clone();
        asked.extend(lock(&self.map).links.values().cloned());
        let mut failed = RedisStoreError::uncovered(0);
        // All at the same time: one that hangs must not keep the others' word away.
        let (send, mut heard) = tokio::sync::mpsc::channel(asked.len().max(1));
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
        while let Some(reply) = heard.recv().await {
            match reply.and_then(|(link, reply)| self.learn(&link, reply)) {
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

    /// Takes a reply to `CLUSTER SLOTS`.
    fn learn(&self, from: &Link, reply: Value) -> Result<(), RedisStoreError> {
        const WHAT: &str = "CLUSTER SLOTS";
        let mut ranges = Vec::new();
        for range in value::array(reply, WHAT)? {
            let mut range = value::array(range, WHAT)?.into_iter();
            let mut slot = || range.next().and_then(|slot| u16::try_from(value::number(&slot)?).ok());
            let (Some(first), Some(last)) = (slot(), slot()) else { return Err(value::unexpected(WHAT)) };
            let mut master = value::array(range.next().unwrap_or_default(), WHAT)?.into_iter();
            let host = master.next().and_then(value::text).filter(|host| !host.is_empty() && host != "?");
            let port = master.next().as_ref().and_then(value::number).ok_or_else(|| value::unexpected(WHAT))?;
            // A node that does not know its own address is where it was asked.
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
        // Links to nodes that are masters no more go with their last request.
        map.links.retain(|_, link| ranges.iter().any(|(.., held)| held.is(link)));
        map.ranges = ranges;
        drop(map);
        if let Some(watch) = self.watch.upgrade().filter(|_| promoted) {
            // What was a replica may hold less than its master had acknowledged.
            watch.reconnected();
        }
        Ok(())
    }
}

impl Map {
    /// A slot has moved.
    fn give(&mut self, slot: u16, link: Link) {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let Some(index) = after.checked_sub(1) else { return };
        let (first, last, held) = self.ranges[index].clone();
        if slot > last || slot >= SLOTS || held.is(&link) {
            return;
        }
        let mut parts = Vec::with_capacity(3);
        if first < slot {
            parts.push((first, slot - 1, held.clone()));
        }
        parts.push((slot, slot, link));
        if slot < last {
            parts.push((slot + 1, last, held));
        }
        self.ranges.splice(index..=index, parts);
    }
}

/// Waits for the answers of several masters, which are asked at the same time; `None` where one gave none in time. One that
/// hangs must not keep the others' words until whoever asked gives up: once one has answered, the others have three times as
/// long as that took, and `EACH` at least.
async fn together<T, E>(asked: impl Iterator<Item = impl Future<Output = Result<T, E>>>) -> Vec<Option<Result<T, E>>> {
    let mut asked: Vec<_> = asked.map(Box::pin).collect();
    let mut answers: Vec<Option<Result<T, E>>> = asked.iter().map(|_| None).collect();
    let begun = Instant::now();
    let mut limit = Box::pin(sleep_until(begun + ALONE));
    let (mut answered, mut warned) = (false, false);
    poll_fn(|cx| {
        let mut pending = false;
        for (asked, answer) in asked.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
            match asked.as_mut().poll(cx) {
                Poll::Ready(ready) => *answer = Some(ready),
                Poll::Pending => pending = true,
            }
        }
        if !pending {
            return Poll::Ready(());
        }
        if !answered && answers.iter().flatten().any(Result::is_ok) {
            answered = true;
            limit.as_mut().reset(begun + EACH.max(begun.elapsed() * 3));
        }
        while limit.as_mut().poll(cx).is_ready() {
            if warned {
                return Poll::Ready(());
            }
            // A process that did not run for a while has had no time to read an answer: that is no fault of the server's.
            warned = true;
            limit.as_mut().reset(Instant::now() + EACH / 6);
        }
        Poll::Pending
    })
    .await;
    answers
}

/// What becomes of a command after a reply.
enum Next {
    Done,
    Again,
    /// At the node that a slot is moving to, which must be asked in a certain way.
    AskAt(Link),
    Later,
}

async fn fly(link: &Link, requests: &[Request], flight: &[(usize, bool)]) -> Result<Vec<Reply>, RedisStoreError> {
    let mut commands = Pipeline::with_capacity(flight.len());
    for (index, asking) in flight {
        if *asking {
            // Holds for the one command that follows.
            commands.cmd("ASKING");
        }
        commands.add_command(requests[*index].command.clone());
    }
    let Some((first, _)) = flight.first() else { return Ok(Vec::new()) };
    let mut replies = requests[*first].fly(link, &commands).await?.into_iter();
    let reply = |(_, asking): &(usize, bool)| {
        if *asking {
            replies.next();
        }
        server_error(link, replies.next().unwrap_or_default())
    };
    Ok(flight.iter().map(reply).collect())
}
