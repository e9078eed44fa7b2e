//! Addresses for pods: each gets a loopback address of its own, so that all can use Knative's port numbers.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;

/// The address and ports of one pod's queue-proxy.
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
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    /// The lower halves of addresses.
    numbers: BTreeSet<u16>,
    /// Ports of apps. An app takes its port long after it was told, and until then the kernel may offer it again.
    app_ports: BTreeSet<u16>,
}

/// An address for as long as this lives.
pub(super) struct Lease {
    pub(super) address: PodAddress,
    /// Port on 127.0.0.1 that the app is told to listen on.
    pub(super) app_port: u16,
    /// `None` for the fallback, which takes nothing from the network.
    number: Option<u16>,
    addresses: Arc<Addresses>,
}

impl Addresses {
    /// Addresses in a network chosen by the process number, so that two runs on a machine rarely share one. If they do,
    /// each finds the ports of the other's addresses in use and passes these addresses over.
    pub(super) fn new() -> Self {
        let pid = std::process::id();
        let second = 64 + (pid / 128 % 128) as u8;
        Addresses { network: [127, second], used: Mutex::default() }
    }

    /// A free address. If the machine has no loopback addresses to spare, or something listens on Knative's ports on
    /// all of them, it is 127.0.0.1 with ports of the kernel's choice.
    pub(super) fn lease(self: &Arc<Self>) -> io::Result<Lease> {
        let mut used = self.used.lock();
        let first = (std::process::id() % 128 * 2) as u16 * 256;
        let own = (first..=u16::MAX)
            // The lowest byte is never 0 or 255: some take these for the network and its broadcast address.
            .filter(|number| (1..255).contains(&(number & 0xff)) && !used.numbers.contains(number))
            .take(ATTEMPTS)
            .map(|number| (number, self.address(number)))
            .find(|(_, address)| address.is_free());
        let [app_port, serving, stats, metrics, admin] = free_ports(&used.app_ports)?;
        let (number, address) = match own {
            Some((number, address)) => (Some(number), address),
            None => (None, PodAddress { ip: Ipv4Addr::LOCALHOST, serving, stats, metrics, admin }),
        };
        used.numbers.extend(number);
        used.app_ports.insert(app_port);
        Ok(Lease { address, app_port, number, addresses: Arc::clone(self) })
    }

    fn address(&self, number: u16) -> PodAddress {
        let [low, high] = number.to_le_bytes();
        let ip = Ipv4Addr::new(self.network[0], self.network[1], high, low);
        PodAddress { ip, serving: 8012, stats: 9090, metrics: 9091, admin: 8022 }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut used = self.addresses.used.lock();
        used.app_ports.remove(&self.app_port);
        if let Some(number) = self.number {
            used.numbers.remove(&number);
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

    fn is_free(&self) -> bool {
        let ports = [self.serving, self.stats, self.metrics, self.admin];
        ports.iter().all(|&port| TcpListener::bind((self.ip, port)).is_ok())
    }

    fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), port)
    }
}

/// Ports on 127.0.0.1 that were free a moment ago.
fn free_ports<const COUNT: usize>(except: &BTreeSet<u16>) -> io::Result<[u16; COUNT]> {
    // Each is held while the others are looked for, so they differ.
    let mut held = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        while *port == 0 || except.contains(port) || is_taken_over_ipv6(*port) {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            *port = listener.local_addr()?.port();
            held.push(listener);
        }
    }
    Ok(ports)
}

/// Whether somebody else listens on the port at `::1`, where an app that does not listen on 127.0.0.1 is looked for.
fn is_taken_over_ipv6(port: u16) -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, port))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
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
    fn a_port_that_an_app_has_been_told_is_told_to_no_other() {
        let addresses = Arc::new(Addresses::new());
        // As if apps had been told three of four.
        addresses.used.lock().app_ports = (1024..=u16::MAX).filter(|port| port % 4 != 1).collect();
        let leases: Vec<Lease> = (0..20).map(|_| addresses.lease().unwrap()).collect();
        let ports: BTreeSet<u16> = leases.iter().map(|lease| lease.app_port).collect();
        assert_eq!(ports.len(), leases.len());
        assert!(ports.iter().all(|port| port % 4 == 1), "{ports:?}");
    }

    #[test]
    fn there_are_more_pods_than_addresses() {
        let addresses = Arc::new(Addresses::new());
        addresses.used.lock().numbers = (0..=u16::MAX).collect();
        let (first, second) = (addresses.lease().unwrap(), addresses.lease().unwrap());
        assert_eq!((first.address.ip, second.address.ip), (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST));
        assert_ne!(first.address.serving, second.address.serving);
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
