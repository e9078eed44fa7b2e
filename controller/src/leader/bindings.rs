//! The table of ports, and who has bound which of them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::roll::{Peer, PeerState};
use crate::ports::{PortOwner, PortTable};

/// The table of ports, and in which version of it each port came to its owner.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    table: Arc<PortTable>,
    since: BTreeMap<PortOwner, u64>,
}

impl Bindings {
    /// The table.
    pub(crate) fn table(&self) -> &Arc<PortTable> {
        &self.table
    }

    /// The table from now on. Returns the owners whose ports have changed.
    pub(crate) fn set_table(&mut self, table: Arc<PortTable>) -> BTreeSet<PortOwner> {
        let before = std::mem::replace(&mut self.table, table);
        let version = number(self.table.version());
        let came = self.table.entries().filter(|(owner, port)| before.port(owner) != Some(*port));
        let mut changed: BTreeSet<PortOwner> = came.map(|(owner, _)| owner.clone()).collect();
        for owner in &changed {
            self.since.insert(owner.clone(), version);
        }
        let gone = before.entries().filter(|(owner, _)| self.table.port(owner).is_none());
        for (owner, _) in gone {
            self.since.remove(owner);
            changed.insert(owner.clone());
        }
        changed
    }

    /// Whether an activator has bound the port of an owner.
    pub(crate) fn has_bound(&self, peer: &Peer, owner: &PortOwner) -> bool {
        let PeerState::Serving { table_version } = &peer.state else { return false };
        let (Some(port), Some(since)) = (self.table.port(owner), self.since.get(owner)) else { return false };
        !table_version.is_empty() && number(table_version) >= *since && !peer.unbindable.contains(&port)
    }
}

/// The higher one of two versions is the newer.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use pilotlight_core::Time;

    use super::*;
    use crate::facts::PodPhase;
    use crate::leader::pretend::{pod, table};

    fn owner(service: &str) -> PortOwner {
        PortOwner::new("shop", service, "http")
    }

    fn at(version: &str) -> Peer {
        Peer {
            pod: pod("a", "10.0.0.1", PodPhase::Ready),
            state: PeerState::Serving { table_version: version.to_owned() },
            unbindable: BTreeSet::new(),
        }
    }

    #[test]
    fn a_port_is_bound_by_whoever_has_seen_the_version_that_it_came_in() {
        let mut bindings = Bindings::default();
        assert_eq!(bindings.set_table(table("7", &["web"])), [owner("web")].into());
        assert_eq!(bindings.set_table(table("9", &["shop", "web"])), [owner("shop")].into());
        for (version, web, shop) in
            [("", false, false), ("6", false, false), ("8", true, false), ("9", true, true)]
        {
            let bound = [owner("web"), owner("shop")].map(|owner| bindings.has_bound(&at(version), &owner));
            assert_eq!(bound, [web, shop], "{version}");
        }
    }

    #[test]
    fn a_port_that_cannot_be_bound_is_not() {
        let mut bindings = Bindings::default();
        bindings.set_table(table("7", &["web"]));
        let port = bindings.table().port(&owner("web")).unwrap();
        let peer = Peer { unbindable: [port].into(), ..at("7") };
        assert!(!bindings.has_bound(&peer, &owner("web")));
        let leaving = Peer { state: PeerState::Leaving { since: Time::EPOCH }, ..at("7") };
        assert!(!bindings.has_bound(&leaving, &owner("web")));
    }

    #[test]
    fn a_port_that_is_given_back_has_changed() {
        let mut bindings = Bindings::default();
        bindings.set_table(table("7", &["shop", "web"]));
        assert_eq!(bindings.set_table(table("8", &["shop"])), [owner("web")].into());
        assert!(!bindings.has_bound(&at("8"), &owner("web")));
    }
}
