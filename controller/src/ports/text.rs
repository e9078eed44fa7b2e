//! The table as the data of a ConfigMap: a key for each namespace with a line `service/port number` for each port, a key
//! for freed ports with lines `number seconds-since-1970`, and one for the place where the search goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use pilotlight_core::Time;

use super::{PortOwner, PortTable, RANGE, is_allowed};

pub(super) fn encode(table: &PortTable) -> BTreeMap<String, String> {
    let mut data: BTreeMap<String, String> = BTreeMap::new();
    for (owner, port) in table.entries() {
        let lines = data.entry(owner.namespace.clone()).or_default();
        // A write to a String cannot fail.
        let _ = writeln!(lines, "{}/{} {port}", owner.service, owner.port);
    }
    let mut freed = String::new();
    for (port, since) in &table.freed {
        let _ = match since {
            Some(since) => writeln!(freed, "{port} {}", since.whole_seconds()),
            None => writeln!(freed, "{port}"),
        };
    }
    if !freed.is_empty() {
        data.insert(FREED.to_owned(), freed);
    }
    data.insert(NEXT.to_owned(), table.next.to_string());
    data
}

pub(super) fn decode<'a>(data: impl Iterator<Item = (&'a String, &'a String)>) -> (PortTable, Vec<String>) {
    let mut table = PortTable::default();
    let mut faults = Vec::new();
    let mut claims: BTreeMap<u16, BTreeSet<PortOwner>> = BTreeMap::new();
    for (key, text) in data {
        match key.as_str() {
            NEXT => match text.trim().parse() {
                Ok(next) if RANGE.contains(&next) => table.next = next,
                _ => faults.push(format!("{NEXT} should be a port, and is `{}`", shown(text))),
            },
            FREED => text.lines().for_each(|line| match freed(line) {
                Some((port, since)) => {
                    table.freed.insert(port, since);
                }
                None => faults.push(format!("{FREED} has `{}`, not `port seconds`", shown(line))),
            }),
            namespace => text.lines().for_each(|line| match claim(namespace, line) {
                Some((owner, port)) => {
                    claims.entry(port).or_default().insert(owner);
                }
                None => faults.push(format!("{namespace} has `{}`, not `service/port number`", shown(line))),
            }),
        }
    }
    settle(&mut table, claims, &mut faults);
    (table, faults)
}

/// Gives each port to the one owner that claims it. Whatever is not clear rests.
fn settle(table: &mut PortTable, claims: BTreeMap<u16, BTreeSet<PortOwner>>, faults: &mut Vec<String>) {
    for (port, owners) in claims {
        let names: Vec<String> = owners.iter().map(ToString::to_string).collect();
        let mut owners = owners.into_iter();
        let (Some(owner), None) = (owners.next(), owners.next()) else {
            faults.push(format!("port {port} is claimed by {}: it belongs to none", names.join(" and ")));
            table.freed.insert(port, None);
            continue;
        };
        if let Some(first) = table.port(&owner) {
            faults.push(format!("{owner} claims port {port} beside {first}: it keeps {first}"));
            table.freed.entry(port).or_insert(None);
            continue;
        }
        if table.freed.remove(&port).is_some() {
            faults.push(format!("port {port} is said to be freed, and {owner} claims it: it keeps it"));
        }
        table.give(owner, port);
    }
}

fn claim(namespace: &str, line: &str) -> Option<(PortOwner, u16)> {
    let (owner, port) = line.split_once(' ')?;
    let (service, name) = owner.split_once('/')?;
    let is_name =
        |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-.".contains(letter));
    let is_owner = !service.is_empty() && is_name(service) && is_name(name);
    let port = port.trim().parse().ok().filter(|port| is_allowed(*port))?;
    is_owner.then(|| (PortOwner::new(namespace, service, name), port))
}

fn freed(line: &str) -> Option<(u16, Option<Time>)> {
    let mut words = line.split_whitespace();
    let port = words.next()?.parse().ok().filter(|port| is_allowed(*port))?;
    // Years past 2106 are no times.
    let since = words.next().map(str::parse::<u32>).transpose().ok()?;
    let since = since.map(|seconds| Time::from_secs(u64::from(seconds)));
    words.next().is_none().then_some((port, since))
}

/// The beginning of a text that may be of any length.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

// A namespace's name begins with a letter or a digit: these are none.
/// The key of freed ports.
const FREED: &str = "_freed";
/// The key of the place where the search goes on.
const NEXT: &str = "_next";
