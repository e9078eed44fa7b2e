//! EndpointSlices of a Service: what is seen of anybody's, what ours should say, and the writes that are missing. Pure.
//!
//! A Service's endpoints are the union of its slices, and ports belong to the slice. Ours lead to activators, at the ports
//! that the [table](crate::ports) allots, or, while no activator is there, to the pods themselves.

mod changes;
mod fact;
mod wanted;

use std::collections::BTreeMap;
use std::net::IpAddr;

use pilotlight_core::Time;

pub use changes::{SliceWrite, changes};
pub use fact::{SliceEndpoint, SliceFact, SliceKind, SliceOwner, SlicePort};
pub use wanted::{retained, wanted_of_activators, wanted_of_pods};

/// The Service that slices are written for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SliceSubject {
    /// The namespace of the Service and of the RequestAutoscaler.
    pub namespace: String,
    /// The name of the Service.
    pub service: String,
    /// The UID of the Service: it owns slices of pods.
    pub service_uid: String,
    /// The RequestAutoscaler that owns slices of activators.
    pub autoscaler: String,
    /// The UID of the RequestAutoscaler.
    pub autoscaler_uid: String,
    /// Whether the Service has an address of IPv4, and one of IPv6.
    pub families: Families,
    /// Whether the Service prefers endpoints near its clients: every endpoint then has a hint for its own zone and node.
    pub prefers_near: bool,
    /// Whether endpoints name their pods. Not in Istio's ambient mode, which skips or misreads endpoints that do.
    pub names_pods: bool,
}

/// The families of addresses that a Service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// A pod that a slice may name: an activator, or a pod of the target.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The addresses, at most one of each family.
    pub ips: Vec<IpAddr>,
    /// The node.
    pub node: String,
    /// The node's zone; empty: not known.
    pub zone: String,
    /// Whether it takes new connections.
    pub stage: Stage,
}

/// Whether a member takes new connections. Members leave in two steps: named as ending first, then not named, since some
/// data planes cut connections to an endpoint that vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It takes new connections.
    Serving,
    /// It should get nothing new, and still serves.
    Leaving {
        /// When this began.
        since: Time,
    },
}

/// A pod of the target with its ports.
#[derive(Clone, Debug, PartialEq)]
pub struct PodMember {
    /// The pod.
    pub member: Member,
    /// The numbers of its ports, by the names of the Service's ports. A Service that does not lead here has none.
    pub ports: BTreeMap<String, u16>,
}

impl Families {
    /// The families of these addresses.
    pub fn of<'a>(ips: impl IntoIterator<Item = &'a IpAddr>) -> Families {
        ips.into_iter().fold(Families::default(), |families, ip| match ip {
            IpAddr::V4(_) => Families { v4: true, ..families },
            IpAddr::V6(_) => Families { v6: true, ..families },
        })
    }

    /// The names that slices have for them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [(self.v4, IPV4), (self.v6, IPV6)].into_iter().filter_map(|(has, name)| has.then_some(name))
    }
}

impl Member {
    /// The address of a family.
    pub fn ip(&self, family: &str) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| family_of(*ip) == family)
    }

    /// Whether it takes new connections.
    pub fn is_serving(&self) -> bool {
        self.stage == Stage::Serving
    }
}

/// The family of an address, as slices name it.
pub(crate) fn family_of(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { IPV4 } else { IPV6 }
}

/// The label that names a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names whoever keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The keeper of our slices.
pub const OURS: &str = "pilotlight.dev";
/// The keeper of slices that follow a Service's selector.
pub const NATIVE: &str = "endpointslice-controller.k8s.io";
/// The keeper of slices that mirror an Endpoints object.
pub const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
/// The annotation of our slices with the time since when new connections may come here at these ports.
pub const STANDING_SINCE: &str = "pilotlight.dev/standing-since";
/// The annotation of our slices with the time of the last change.
pub const CHANGED: &str = "pilotlight.dev/changed";
/// The most endpoints of a slice, as Kubernetes' own have it.
pub const MOST_ENDPOINTS: usize = 100;

const IPV4: &str = "IPv4";
const IPV6: &str = "IPv6";

#[cfg(test)]
mod tests;
