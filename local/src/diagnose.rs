//! Ports that a process which does not answer listens on instead, as far as Linux tells.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The TCP ports that processes of this process group listen on, in order. Empty where the system cannot say.
pub(super) fn listening_ports(process_group: u32) -> Vec<u16> {
    let sockets: BTreeSet<u64> = members(process_group).into_iter().flat_map(sockets_of).collect();
    let mut ports = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        ports.extend(
            text.lines()
                .skip(1)
                .filter_map(listening)
                .filter(|(_, inode)| sockets.contains(inode))
                .map(|(port, _)| port),
        );
    }
    ports.into_iter().collect()
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

/// Port and inode of a row of /proc/net/tcp that is in state LISTEN.
fn listening(row: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (*state == "0A").then_some((port, inode.parse().ok()?))
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
}
