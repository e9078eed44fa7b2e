//! Addresses for pods, Services and whatever else of a cluster has one: each its own, out of a range of this machine's.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

use anyhow::{Context, ensure};

/// A range to take addresses from. Clones take from the same.
#[derive(Clone, Debug)]
pub struct AddressRange {
    first: u32,
    count: u32,
    taken: Arc<AtomicU32>,
}

impl AddressRange {
    /// The environment variable that names another range than loopback addresses, such as `198.18.64.0/18`.
    pub const VARIABLE: &str = "PILOTLIGHT_TEST_ADDRESSES";

    /// The range that the environment names; otherwise a part of 127.64.0.0/10 that no other process of tests has, unless
    /// there are thousands of them.
    pub fn from_env() -> anyhow::Result<AddressRange> {
        if let Ok(range) = env::var(AddressRange::VARIABLE) {
            return AddressRange::parse(&range)
                .with_context(|| format!("{} is {range:?}", AddressRange::VARIABLE));
        }
        let own = u32::from(LOOPBACK) + process::id() % (LOOPBACK_COUNT / OWN_COUNT) * OWN_COUNT;
        // One counter for all clusters of this process.
        static TAKEN: std::sync::LazyLock<Arc<AtomicU32>> = std::sync::LazyLock::new(Arc::default);
        Ok(AddressRange { first: own, count: OWN_COUNT, taken: Arc::clone(&TAKEN) })
    }

    fn parse(text: &str) -> anyhow::Result<AddressRange> {
        let (ip, bits) = text.split_once('/').context("a range is ADDRESS/BITS")?;
        let ip: Ipv4Addr = ip.parse().context("only IPv4 is known here")?;
        let bits: u32 = bits.parse().context("the bits are no number")?;
        ensure!((8..=29).contains(&bits), "a range has 8 to 29 bits in common");
        let count = 1_u32 << (32 - bits);
        Ok(AddressRange { first: u32::from(ip) & !(count - 1), count, taken: Arc::default() })
    }

    /// An address on which nobody listens, the next one each time: an address that was given back is not seen again for
    /// long, so nothing meant for its former owner reaches the next.
    pub fn take(&self) -> anyhow::Result<IpAddr> {
        for _ in 0..self.count {
            let number = self.taken.fetch_add(1, Ordering::Relaxed) % self.count;
            let ip = Ipv4Addr::from(self.first + number);
            // Some take addresses that end with 0 or 255 for a network's.
            let is_plain = (1..255).contains(&ip.octets()[3]);
            if is_plain && PORTS.iter().all(|&port| TcpListener::bind((ip, port)).is_ok()) {
                return Ok(ip.into());
            }
        }
        anyhow::bail!("none of {} addresses from {} on is free", self.count, Ipv4Addr::from(self.first))
    }
}

const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 0);
const LOOPBACK_COUNT: u32 = 1 << 22;
const OWN_COUNT: u32 = 1 << 10;
/// Ports of a queue-proxy: who has an address uses one of them.
const PORTS: [u16; 4] = [8012, 8013, 8022, 9090];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_its_ends_are_passed_over() {
        let range = AddressRange::parse("127.90.3.250/29").unwrap();
        assert_eq!((Ipv4Addr::from(range.first), range.count), (Ipv4Addr::new(127, 90, 3, 248), 8));
        let taken: Vec<_> = (0..8).map(|_| range.take().unwrap().to_string()).collect();
        // 248 to 254, and 248 again: 255 is left out.
        assert_eq!(taken[..2], ["127.90.3.248", "127.90.3.249"]);
        assert_eq!(taken[6..], ["127.90.3.254", "127.90.3.248"]);
    }

    #[test]
    fn an_address_in_use_is_passed_over() {
        let range = AddressRange::parse("127.90.4.16/29").unwrap();
        let _held = TcpListener::bind("127.90.4.16:9090").unwrap();
        assert_eq!(range.take().unwrap().to_string(), "127.90.4.17");
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["127.0.0.1", "::1/64", "127.0.0.0/x", "127.0.0.0/30"] {
            assert!(AddressRange::parse(text).is_err(), "{text}");
        }
    }
}
