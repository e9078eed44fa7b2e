//! The ports of activators that our slices name, and whether they name this activator.

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::facts::Name;
use crate::slices::{SliceFact, SliceKind};

/// A slice that leads to activators, as far as one of them is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedPorts {
    /// The ports.
    pub(super) ports: Box<[u16]>,
    /// Whether this activator is among the endpoints.
    pub(super) own: Standing,
}

/// The standing of this activator in slices; a later one outweighs an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Not in it.
    #[default]
    Absent,
    /// In it, and about to go: new connections come only where nobody else is.
    Leaving,
    /// In it, and ready for connections.
    Ready,
}

impl NamedPorts {
    /// Reads a slice; `None`: it does not lead to activators.
    pub(super) fn read(slice: &EndpointSlice, own: IpAddr) -> Option<(Name, NamedPorts)> {
        let (name, fact) = SliceFact::read(slice)?;
        if fact.kind() != SliceKind::Activators {
            return None;
        }
        let standing = |is_ready: bool| if is_ready { Standing::Ready } else { Standing::Leaving };
        let own = fact.endpoints.iter().filter(|endpoint| endpoint.ip == own);
        let own = own.map(|endpoint| standing(endpoint.is_ready)).max().unwrap_or_default();
        let ports = fact.ports.iter().map(|port| port.number).collect();
        Some((name, NamedPorts { ports, own }))
    }
}

/// All slices that lead to activators.
#[derive(Debug, Default)]
pub(super) struct NamedIndex {
    slices: HashMap<Name, NamedPorts>,
    /// How many slices name this activator as ready, and as leaving.
    ready: usize,
    leaving: usize,
}

/// A port that a slice more or a slice fewer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// A slice names it.
    Named(u16),
    /// A slice does not name it any more.
    Dropped(u16),
}

impl NamedIndex {
    /// Takes in a slice; `None`: it is gone. Returns what that changes: new names first, so that a port whose slice is
    /// replaced is never without one.
    pub(super) fn learn(&mut self, name: &Name, slice: Option<NamedPorts>) -> Vec<Naming> {
        let before = match &slice {
            Some(slice) => self.slices.insert(name.clone(), slice.clone()),
            None => self.slices.remove(name),
        };
        self.count(slice.as_ref(), |count| count + 1);
        self.count(before.as_ref(), |count| count - 1);
        let ports = |slice: Option<NamedPorts>| slice.map(|slice| slice.ports).unwrap_or_default();
        let named = ports(slice).into_iter().map(Naming::Named);
        named.chain(ports(before).into_iter().map(Naming::Dropped)).collect()
    }

    /// The standing of this activator in all of them together.
    pub(super) fn standing(&self) -> Standing {
        match (self.ready, self.leaving) {
            (0, 0) => Standing::Absent,
            (0, _) => Standing::Leaving,
            _ => Standing::Ready,
        }
    }

    fn count(&mut self, slice: Option<&NamedPorts>, change: impl Fn(usize) -> usize) {
        match slice.map(|slice| slice.own) {
            Some(Standing::Ready) => self.ready = change(self.ready),
            Some(Standing::Leaving) => self.leaving = change(self.leaving),
            Some(Standing::Absent) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(owner: &str, endpoints: &Value) -> EndpointSlice {
        let object = json!({"metadata": {"namespace": "shop", "name": "web-1",
                "labels": {"endpointslice.kubernetes.io/managed-by": "pilotlight.dev"},
                "ownerReferences": [{"apiVersion": "v1", "kind": owner, "name": "web", "uid": "u"}]},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 10007}, {"name": "grpc", "port": 10008}],
            "endpoints": endpoints});
        serde_json::from_value(object).unwrap()
    }

    fn named(endpoints: &Value) -> NamedPorts {
        let own = "10.0.0.7".parse().unwrap();
        NamedPorts::read(&slice("RequestAutoscaler", endpoints), own).expect("it leads to activators").1
    }

    #[test]
    fn a_slice_names_ports_and_perhaps_this_activator() {
        let endpoint = |ip: &str, ready: bool| json!({"addresses": [ip], "conditions": {"ready": ready, "serving": true}});
        let table = [
            (json!([]), Standing::Absent),
            (json!([endpoint("10.0.0.8", true)]), Standing::Absent),
            (json!([endpoint("10.0.0.8", true), endpoint("10.0.0.7", true)]), Standing::Ready),
            (json!([endpoint("10.0.0.7", false)]), Standing::Leaving),
        ];
        for (endpoints, own) in table {
            assert_eq!(named(&endpoints), NamedPorts { ports: [10007, 10008].into(), own });
        }
        let of_pods = slice("Service", &json!([endpoint("10.0.0.7", true)]));
        assert_eq!(NamedPorts::read(&of_pods, "10.0.0.7".parse().unwrap()), None);
    }

    #[test]
    fn a_slice_that_changes_names_before_it_drops() {
        let fact = |ports: &[u16], own| NamedPorts { ports: ports.into(), own };
        let mut index = NamedIndex::default();
        let [one, other] = ["one", "other"].map(|name| Name::new("shop", name));
        assert_eq!(
            index.learn(&one, Some(fact(&[1, 2], Standing::Ready))),
            [Naming::Named(1), Naming::Named(2)]
        );
        index.learn(&other, Some(fact(&[3], Standing::Leaving)));
        assert_eq!(index.standing(), Standing::Ready);
        let changes = index.learn(&one, Some(fact(&[2], Standing::Absent)));
        assert_eq!(changes, [Naming::Named(2), Naming::Dropped(1), Naming::Dropped(2)]);
        assert_eq!(index.standing(), Standing::Leaving);
        assert_eq!(index.learn(&other, None), [Naming::Dropped(3)]);
        assert_eq!(index.standing(), Standing::Absent);
        assert_eq!(index.learn(&other, None), []);
    }
}
