//! The masters of a cluster, and the links to them.

use std::sync::{Mutex, atomic::AtomicBool};

use redis::{Client, ConnectionAddr};
use tokio::time::Instant;

use super::super::{
    error::RedisStoreError,
    link::{Link, Watch},
    source::Source,
};
use super::map::Map;
use crate::runtime::sync::lock;

/// The masters of a cluster, and which slots they have.
pub(in super::super) struct Masters {
    /// The settings for nodes whose addresses come from the cluster.
    template: Client,
    pub(super) seeds: Vec<Link>,
    pub(super) map: Mutex<Map>,
    pub(super) refreshing: tokio::sync::Mutex<Option<Instant>>,
    pub(super) stale: AtomicBool,
    pub(super) watch: std::sync::Weak<dyn Watch>,
}

impl Masters {
    pub(in super::super) fn new(clients: Vec<Client>, watch: std::sync::Weak<dyn Watch>) -> Option<Self> {
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

    /// The number of a slot's master. A slot without a master has a number of its own.
    pub(in super::super) fn part(&self, slot: u16) -> u64 {
        self.link(slot).map_or(u64::MAX, |link| link.number())
    }

    pub(in super::super) fn parts(&self) -> usize {
        self.masters().len()
    }

    /// All masters, each once, in the order of their slots.
    pub(super) fn masters(&self) -> Vec<Link> {
        let mut masters: Vec<Link> = Vec::new();
        for (.., link) in &lock(&self.map).ranges {
            if !masters.iter().any(|held| held.is(link)) {
                masters.push(link.clone());
            }
        }
        masters
    }

    /// Whether a link is to a master.
    pub(in super::super) fn uses(&self, link: &Link) -> bool {
        lock(&self.map).ranges.iter().any(|(.., held)| held.is(link))
    }

    /// The run ids of all masters.
    pub(in super::super) fn runs(&self) -> String {
        let mut runs: Vec<_> = self.masters().iter().map(|link| link.run().to_string()).collect();
        // Sorted, since a slot that moves changes only their order.
        runs.sort_unstable();
        runs.join(" ")
    }

    pub(in super::super) fn any(&self) -> Result<Link, RedisStoreError> {
        let map = lock(&self.map);
        let random = crate::runtime::random::u128() as usize;
        let masters = map.ranges.len();
        let link = if masters > 0 { Some(map.ranges[random % masters].2.clone()) } else { None };
        link.or_else(|| self.seeds.first().cloned()).ok_or(RedisStoreError::uncovered(0))
    }

    /// The link to a node that the cluster has named.
    pub(super) fn link_to(&self, address: &str) -> Option<Link> {
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
}
