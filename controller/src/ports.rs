//! The table of the activators' ports: which port stands for which port of which Service.
//!
//! One ConfigMap keeps it, so that two leaders cannot allot one port twice: whoever writes second meets a conflict of
//! `resourceVersion`. Ports are allotted next-fit, and a freed one rests for ten minutes: clients that still have the old
//! address must not reach somebody else's pods. Pure: times come in as arguments.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pilotlight_core::Time;

/// A port of a Service: what an activator's port stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortOwner {
    /// The namespace.
    pub namespace: String,
    /// The Service.
    pub service: String,
    /// The name of the Service's port; empty if it has none.
    pub port: String,
}

impl PortOwner {
    /// Names a port of a Service.
    pub fn new(namespace: impl Into<String>, service: impl Into<String>, port: impl Into<String>) -> Self {
        PortOwner { namespace: namespace.into(), service: service.into(), port: port.into() }
    }
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.service, self.port)
    }
}

/// The activators' ports and their owners.
///
/// ```
/// use std::collections::BTreeSet;
/// use pilotlight_controller::ports::{PortOwner, PortTable};
/// use pilotlight_core::Time;
/// let web = PortOwner::new("shop", "web", "http");
/// let mut table = PortTable::default();
/// assert!(table.reconcile(Time::EPOCH, &BTreeSet::from([web.clone()]), &BTreeSet::new()).has_changed);
/// assert_eq!(table.port(&web), Some(10_000));
/// assert_eq!(PortTable::decode(&table.encode("pilotlight-system")).0, table);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTable {
    version: String,
    /// Where the search for a free port goes on.
    next: u16,
    ports: BTreeMap<PortOwner, u16>,
    owners: BTreeMap<u16, PortOwner>,
    /// Ports that rest, and since when; `None`: not known, and settled by the next [`reconcile`](Self::reconcile).
    freed: BTreeMap<u16, Option<Time>>,
}

/// The result of bringing the table up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Whether the table is to be written.
    pub has_changed: bool,
    /// Present if some owners are left without a port.
    pub exhausted: Option<PortsExhausted>,
}

/// Every port is allotted, rests, or cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no activator port is left for {lacking} ports of Services: of {total} ports {allotted} are allotted, and the others \
     were freed less than 10 minutes ago or cannot be bound; delete RequestAutoscalers that are not needed, or wait"
)]
pub struct PortsExhausted {
    /// Ports of Services that have none.
    pub lacking: usize,
    /// Ports that there are.
    pub total: usize,
    /// Ports that have an owner.
    pub allotted: usize,
}

impl Default for PortTable {
    fn default() -> Self {
        PortTable {
            version: String::new(),
            next: *RANGE.start(),
            ports: BTreeMap::new(),
            owners: BTreeMap::new(),
            freed: BTreeMap::new(),
        }
    }
}

impl PortTable {
    /// Reads the table, and what is wrong with it: a sentence for each line that could not be used. A port that two owners
    /// claim belongs to neither.
    pub fn decode(object: &ConfigMap) -> (PortTable, Vec<String>) {
        let version = object.metadata.resource_version.clone().unwrap_or_default();
        let (table, faults) = text::decode(object.data.iter().flatten());
        (PortTable { version, ..table }, faults)
    }

    /// The ConfigMap that keeps the table. Its `resourceVersion` is the one that was read, so that a write conflicts with
    /// whoever wrote in between; the first write has none, and creates it.
    pub fn encode(&self, namespace: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(CONFIG_MAP.to_owned()),
                resource_version: Some(self.version.clone()).filter(|version| !version.is_empty()),
                ..ObjectMeta::default()
            },
            data: Some(text::encode(self)),
            ..ConfigMap::default()
        }
    }

    /// The port of an owner.
    pub fn port(&self, owner: &PortOwner) -> Option<u16> {
        self.ports.get(owner).copied()
    }

    /// The owner of a port.
    pub fn owner(&self, port: u16) -> Option<&PortOwner> {
        self.owners.get(&port)
    }

    /// All owners with their ports, in order.
    pub fn entries(&self) -> impl Iterator<Item = (&PortOwner, u16)> {
        self.ports.iter().map(|(owner, port)| (owner, *port))
    }

    /// The ConfigMap's `resourceVersion`; empty: there is none yet.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Ports for all that is wanted, and for nothing else: what lacks one gets one, and so does an owner whose port some
    /// activator cannot bind. Nothing changes merely because time has passed, so that nothing is written then.
    pub fn reconcile(
        &mut self,
        now: Time,
        wanted: &BTreeSet<PortOwner>,
        unbindable: &BTreeSet<u16>,
    ) -> Reconciled {
        let undated = self.freed.values().any(Option::is_none);
        let useless = |(owner, port): (&PortOwner, &u16)| {
            (!wanted.contains(owner) || unbindable.contains(port)).then_some(*port)
        };
        let useless: Vec<u16> = self.ports.iter().filter_map(useless).collect();
        let lacking: Vec<&PortOwner> =
            wanted.iter().filter(|owner| !self.ports.contains_key(owner)).collect();
        if !undated && useless.is_empty() && lacking.is_empty() {
            return Reconciled::default();
        }

        self.forget(now);
        for port in &useless {
            self.free(now, *port);
        }
        let (mut allotted, mut exhausted) = (0, None);
        let lacking: Vec<&PortOwner> =
            wanted.iter().filter(|owner| !self.ports.contains_key(owner)).collect();
        for (done, owner) in lacking.iter().enumerate() {
            let Some(port) = self.search(unbindable) else {
                let (total, allotted) = (Self::capacity(), self.ports.len());
                exhausted = Some(PortsExhausted { lacking: lacking.len() - done, total, allotted });
                break;
            };
            self.give((*owner).clone(), port);
            self.next = following(port);
            allotted += 1;
        }
        Reconciled { has_changed: undated || !useless.is_empty() || allotted > 0, exhausted }
    }

    /// Takes in a port that something else tells of, such as a slice that names it, unless the table knows better. Returns
    /// whether it did: a table that was deleted is made anew of what is in use.
    pub fn adopt(&mut self, owner: &PortOwner, port: u16) -> bool {
        let is_free = is_allowed(port) && !self.owners.contains_key(&port) && !self.freed.contains_key(&port);
        if !is_free || self.ports.contains_key(owner) {
            return false;
        }
        self.give(owner.clone(), port);
        true
    }

    /// How many ports there are.
    pub fn capacity() -> usize {
        RANGE.filter(|port| is_allowed(*port)).count()
    }

    fn give(&mut self, owner: PortOwner, port: u16) {
        self.owners.insert(port, owner.clone());
        self.ports.insert(owner, port);
    }

    fn free(&mut self, now: Time, port: u16) {
        if let Some(owner) = self.owners.remove(&port) {
            self.ports.remove(&owner);
            self.freed.insert(port, Some(to_seconds(now)));
        }
    }

    /// Ports that have rested long enough are free; those whose time is not known, or lies far ahead, begin to rest now.
    fn forget(&mut self, now: Time) {
        let latest = to_seconds(now);
        for since in self.freed.values_mut() {
            *since = Some(since.filter(|since| *since <= now + REST).unwrap_or(latest));
        }
        self.freed.retain(|_, since| since.is_some_and(|since| now.since(since) < REST));
    }

    /// The first free port from the last one on.
    fn search(&self, unbindable: &BTreeSet<u16>) -> Option<u16> {
        let is_free = |port: &u16| {
            is_allowed(*port)
                && !self.owners.contains_key(port)
                && !self.freed.contains_key(port)
                && !unbindable.contains(port)
        };
        (self.next..=*RANGE.end()).chain(*RANGE.start()..self.next).find(is_free)
    }
}

/// Whether a port may be allotted at all.
fn is_allowed(port: u16) -> bool {
    RANGE.contains(&port) && !FORBIDDEN.iter().any(|range| range.contains(&port))
}

fn following(port: u16) -> u16 {
    if port < *RANGE.end() { port + 1 } else { *RANGE.start() }
}

/// Whole seconds, upwards: a port rests for no less than it should.
fn to_seconds(now: Time) -> Time {
    Time::from_secs(now.as_nanos().div_ceil(1_000_000_000))
}

/// The name of the ConfigMap in our namespace.
pub const CONFIG_MAP: &str = "pilotlight-ports";
/// How long a freed port is not allotted again.
pub const REST: Duration = Duration::from_secs(600);
/// The ports of the activators, below those that Linux takes for connections that go out.
pub const RANGE: RangeInclusive<u16> = 10_000..=32_767;
/// Ports that sidecars of meshes take.
const FORBIDDEN: [RangeInclusive<u16>; 4] =
    [15_000..=15_099, 19_000..=19_000, 20_000..=20_000, 21_000..=21_255];

#[cfg(test)]
mod tests;
