//! Addresses for pods: each gets a loopback address of its own, so that all can use Knative's port numbers.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;

/// Where the servers of one pod's queue-proxy listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PodAddress {
    pub(super) ip: Ipv4Addr,
    /// Requests.
    pub(super) serving: u16,
    /// Stats for the autoscaler.
    pub(super) stats: u16,
    /// Metrics for Prometheus.
    pub(super) metrics: u16,
    /// `/wait-for-drain`.
    pub(super) admin: u16,
}

/// Hands out addresses and takes them back.
pub(super) struct Addresses {
    network: [u8; 2],
    used: Mutex<BTreeSet<u16>>,
}

/// An address for as long as this lives.
pub(super) struct Lease {
    pub(super) address: PodAddress,
    /// `None` for the fallback, which takes nothing from the network.
    number: Option<u16>,
    addresses: Arc<Addresses>,
}

impl Addresses {
    /// Takes a network by the process number, so that two runs on a machine rarely meet; where they do, the ports
    /// of an address that is taken tell.
    pub(super) fn new() -> Self {
        let pid = std::process::id();
        let second = 64 + (pid / 128 % 128) as u8;
        Addresses { network: [127, second], used: Mutex::default() }
    }

    /// An address nobody uses. Where the machine has no loopback addresses to spare, or something listens on
    /// Knative's ports on all of them, it is 127.0.0.1 with ports of the kernel's choice.
    pub(super) fn lease(self: &Arc<Self>) -> io::Result<Lease> {
        // Kept until one is found, or the next attempt would be offered the same again.
        let mut unfit = Vec::new();
        for _ in 0..ATTEMPTS {
            let number = self.next_number();
            let lease = |address| Lease { address, number: Some(number), addresses: Arc::clone(self) };
            let [low, high] = number.to_le_bytes();
            let ip = Ipv4Addr::new(self.network[0], self.network[1], high, low);
            let address = PodAddress { ip, serving: 8012, stats: 9090, metrics: 9091, admin: 8022 };
            if address.ports().iter().all(|&port| TcpListener::bind((ip, port)).is_ok()) {
                return Ok(lease(address));
            }
            unfit.push(lease(address));
        }
        let ip = Ipv4Addr::LOCALHOST;
        // All at once: each port is taken while the others are looked for, so they differ.
        let listeners: Vec<_> = (0..4).map(|_| TcpListener::bind((ip, 0))).collect::<io::Result<_>>()?;
        let ports: Vec<u16> =
            listeners.iter().map(|it| Ok(it.local_addr()?.port())).collect::<io::Result<_>>()?;
        let address =
            PodAddress { ip, serving: ports[0], stats: ports[1], metrics: ports[2], admin: ports[3] };
        Ok(Lease { address, number: None, addresses: Arc::clone(self) })
    }

    fn next_number(&self) -> u16 {
        let mut used = self.used.lock();
        let offset = (std::process::id() % 128 * 2) as u16;
        // The lowest byte is never 0 or 255, for those who take such addresses for something else.
        let free = (offset * 256..=u16::MAX)
            .find(|number| (1..255).contains(&(number & 0xff)) && !used.contains(number))
            .unwrap_or(1);
        used.insert(free);
        free
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.addresses.used.lock().remove(&number);
        }
    }
}

impl PodAddress {
    pub(super) fn serving(&self) -> SocketAddr {
        self.socket(self.serving)
    }

    pub(super) fn stats(&self) -> SocketAddr {
        self.socket(self.stats)
    }

    pub(super) fn metrics(&self) -> SocketAddr {
        self.socket(self.metrics)
    }

    fn ports(&self) -> [u16; 4] {
        [self.serving, self.stats, self.metrics, self.admin]
    }

    fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), port)
    }
}

/// A port on 127.0.0.1 that was free a moment ago, for an app that is told where to listen.
pub(super) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Addresses tried before falling back to 127.0.0.1.
const ATTEMPTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_differ_while_they_live_and_come_back_when_they_end() {
        let addresses = Arc::new(Addresses::new());
        let first = addresses.lease().unwrap();
        let second = addresses.lease().unwrap();
        assert_ne!(first.address, second.address);
        let freed = first.address;
        drop(first);
        assert_eq!(addresses.lease().unwrap().address, freed);
    }

    #[test]
    fn an_address_with_a_port_in_use_is_passed_over() {
        let addresses = Arc::new(Addresses::new());
        let first = addresses.lease().unwrap();
        let taken = TcpListener::bind(first.address.stats()).unwrap();
        let occupied = first.address;
        drop(first);
        assert_ne!(addresses.lease().unwrap().address, occupied);
        drop(taken);
    }
}
