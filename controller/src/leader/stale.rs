//! The Endpoints object that a Service leaves behind when its selector goes: whether it is the target's. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};

use crate::Workload;
use crate::path::EndpointsSeen;

/// An Endpoints object as the path sees it. `native` are the addresses in slices that Kubernetes itself has written for the
/// Service: they were pods of the target as well.
pub(crate) fn endpoints_seen(
    found: Option<&Endpoints>,
    workload: &Workload,
    native: &BTreeSet<IpAddr>,
) -> EndpointsSeen {
    let Some(endpoints) = found else { return EndpointsSeen::Absent };
    let present: BTreeSet<IpAddr> = workload.pods.values().flat_map(|pod| pod.ips.iter().copied()).collect();
    let prefix = format!("{}-", workload.autoscaler.spec.scale_target_ref.name);
    let is_of_target = |address: &EndpointAddress| {
        let is_known = |ip: IpAddr| present.contains(&ip) || native.contains(&ip);
        let pod = address.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let was_its_pod = pod.and_then(|pod| pod.name.as_ref()).is_some_and(|name| name.starts_with(&prefix));
        address.ip.parse().is_ok_and(is_known) || was_its_pod
    };
    let subsets = endpoints.subsets.iter().flatten();
    let mut addresses = subsets.flat_map(|subset| {
        subset.addresses.iter().flatten().chain(subset.not_ready_addresses.iter().flatten())
    });
    EndpointsSeen::Present {
        uid: endpoints.metadata.uid.clone().unwrap_or_default(),
        resource_version: endpoints.metadata.resource_version.clone().unwrap_or_default(),
        is_of_target: addresses.all(is_of_target),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::leader::pretend::workload;

    fn is_of_target(address: &serde_json::Value) -> bool {
        let object =
            json!({"metadata": {"uid": "u", "resourceVersion": "3"}, "subsets": [{"addresses": [address]}]});
        let native = ["10.0.0.9".parse().unwrap()].into();
        let endpoints = serde_json::from_value(object).unwrap();
        match endpoints_seen(Some(&endpoints), &workload(&[("web-1", "10.0.0.7")]), &native) {
            EndpointsSeen::Present { is_of_target, .. } => is_of_target,
            seen => panic!("{seen:?}"),
        }
    }

    #[test]
    fn endpoints_are_the_targets_if_every_address_is_that_of_a_pod_it_has_or_had() {
        assert!(is_of_target(&json!({"ip": "10.0.0.7"})), "a pod that is there");
        assert!(is_of_target(&json!({"ip": "10.0.0.9"})), "one that Kubernetes told of");
        let pod = |name: &str| json!({"ip": "10.0.0.8", "targetRef": {"kind": "Pod", "name": name}});
        assert!(is_of_target(&pod("web-0")), "a pod that was there, by its name");
        assert!(!is_of_target(&pod("shop-0")));
        assert!(!is_of_target(&json!({"ip": "192.168.0.1"})), "somebody's own address");
        assert_eq!(endpoints_seen(None, &workload(&[]), &BTreeSet::new()), EndpointsSeen::Absent);
    }
}
