//! Ports that stay one server's own, also while it is down.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
};

/// Below where systems take the ports of outgoing connections from (Linux: 32768): a client that keeps
/// connecting to a killed server's port could otherwise be given that very port, and connect to itself.
const PORTS: Range<u16> = 12_000..22_000;

/// How far Redis puts a node's Cluster bus above its port.
const TO_BUS: u16 = 10_000;

/// A TCP port of 127.0.0.1, claimed until this goes.
pub(super) struct Port {
    number: u16,
    /// The UDP ports of the same numbers. Redis has no use for them, and they tell the tests running beside this
    /// one that the TCP ports are taken, even between a server's death and its restart.
    _claims: Vec<UdpSocket>,
}

impl Port {
    pub(super) fn claim() -> Self {
        Self::claim_with(&[0])
    }

    /// One whose Cluster bus port is free as well.
    pub(super) fn claim_for_cluster() -> Self {
        Self::claim_with(&[0, TO_BUS])
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    fn claim_with(offsets: &[u16]) -> Self {
        random()
            .take(1000)
            .find_map(|number| {
                let claims: Option<_> = offsets.iter().map(|offset| claim(number + offset)).collect();
                Some(Self { number, _claims: claims? })
            })
            .expect("a port is free")
    }
}

fn claim(number: u16) -> Option<UdpSocket> {
    let address = (Ipv4Addr::LOCALHOST, number);
    let claim = UdpSocket::bind(address).ok()?;
    TcpListener::bind(address).ok().map(|_| claim)
}

fn random() -> impl Iterator<Item = u16> {
    let seed = RandomState::new();
    let width = u64::from(PORTS.end - PORTS.start);
    (0_u64..).map(move |n| {
        let offset = seed.hash_one(n) % width;
        PORTS.start + u16::try_from(offset).expect("less than the width")
    })
}
