//! Ports that a process which does not answer listens on instead, as far as Linux tells.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The TCP ports that processes of this process group listen on, in order. Empty where the system cannot say.
pub(super) fn listening_ports(process_group: u32) -> Vec<u16> {
    let ports: BTreeSet<u16> = addresses(process_group).iter().map(SocketAddr::port).collect();
    ports.into_iter().collect()
}

/// The address at which processes of this process group listen on the port, if it cannot be reached from this machine's
/// loopback addresses.
pub(super) fn out_of_reach(process_group: u32, port: u16) -> Option<SocketAddr> {
    let is_in_reach = |address: &SocketAddr| {
        let ip = address.ip().to_canonical();
        ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
    };
    let addresses = addresses(process_group).into_iter().filter(|address| address.port() == port);
    let addresses: Vec<_> = addresses.collect();
    addresses.first().copied().filter(|_| !addresses.iter().any(is_in_reach))
}

/// The addresses that processes of this process group listen on.
fn addresses(process_group: u32) -> Vec<SocketAddr> {
    let sockets: BTreeSet<u64> = members(process_group).into_iter().flat_map(sockets_of).collect();
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let rows = tables.iter().flat_map(|text| text.lines().skip(1)).filter_map(listening);
    rows.filter(|(_, inode)| sockets.contains(inode)).map(|(address, _)| address).collect()
}

fn members(process_group: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| group_of(pid) == Some(process_group)).collect()
}

fn group_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state ppid pgrp ...", where the name may hold anything, even parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

fn sockets_of(pid: u32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return Vec::new();
    };
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// Address and inode of a row of /proc/net/tcp or tcp6 that is in state LISTEN.
fn listening(row: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (ip, port) = local.rsplit_once(':')?;
    let address = SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
    (*state == "0A").then_some((address, inode.parse().ok()?))
}

/// An address as the kernel prints it: words of 32 bits in hexadecimal, each in the order of the processor.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<[u8; 4]>>>()?.concat();
    match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(bytes) => Some(IpAddr::from(bytes)),
        Err(_) => <[u8; 16]>::try_from(&bytes[..]).ok().map(IpAddr::from),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn our_own_listening_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let group = group_of(std::process::id()).unwrap();
        assert!(listening_ports(group).contains(&listener.local_addr().unwrap().port()));
    }

    #[test]
    fn an_address_that_loopback_does_not_reach_is_told() {
        let group = group_of(std::process::id()).unwrap();
        for (address, is_in_reach) in [
            ("127.0.0.1:0", true),
            ("0.0.0.0:0", true),
            ("[::1]:0", true),
            ("[::]:0", true),
            ("127.0.0.2:0", false),
        ] {
            let Ok(listener) = std::net::TcpListener::bind(address) else {
                assert!(address.starts_with('['), "only IPv6 may be missing");
                continue;
            };
            let address = listener.local_addr().unwrap();
            assert_eq!(out_of_reach(group, address.port()), (!is_in_reach).then_some(address));
        }
    }
}
