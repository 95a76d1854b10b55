//! Ports that stay reserved for one server, also while it is down.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
};

/// The ports to choose from. They lie below the range for outgoing connections (on Linux from 32768): a client that
/// keeps connecting to the port of a killed server could otherwise get that port as its own, and connect to itself.
const PORTS: Range<u16> = 12_000..22_000;

/// The distance from a node's port to the port of its Cluster bus.
const TO_BUS: u16 = 10_000;

/// A TCP port of 127.0.0.1, reserved until this handle is dropped.
pub(super) struct Port {
    number: u16,
    /// The UDP ports with the same numbers, which Redis does not use. While they are bound, other tests see that the TCP
    /// ports are taken, even between a server's death and its restart.
    _claims: Vec<UdpSocket>,
}

impl Port {
    pub(super) fn claim() -> Self {
        Self::claim_with(&[0])
    }

    /// Claims a port whose Cluster bus port is free as well.
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
