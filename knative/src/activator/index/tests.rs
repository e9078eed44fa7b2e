use std::time::Duration;

use pilotlight_core::Timeouts;

use super::*;
use crate::activator::facts::Ports;

const HTTP: Ports = Ports { http: Some(8012), http2: None };
const HTTP2: Ports = Ports { http: None, http2: Some(8013) };

fn id(name: &str) -> RevisionId {
    RevisionId::new("shop", name)
}

fn revision(protocol: Protocol) -> Option<Arc<RevisionFacts>> {
    Some(Arc::new(RevisionFacts {
        container_concurrency: 3.into(),
        timeouts: Timeouts::total(Duration::from_secs(60)),
        protocol,
        trusts_probes: true,
    }))
}

fn address(ip: &str, is_ready: bool, ports: Ports) -> Address {
    Address { ip: ip.parse().unwrap(), pod: format!("pod-{ip}").into(), is_ready, ports }
}

fn key(side: Side, object: &str) -> ListKey {
    ListKey { revision: id("a"), side, object: object.to_owned() }
}

fn list<const N: usize>(addresses: [Address; N]) -> Option<Arc<Box<[Address]>>> {
    Some(Arc::new(addresses.into()))
}

fn service(cluster_ip: &str) -> Option<Arc<ServiceFacts>> {
    let ports = Ports { http: Some(80), http2: Some(80) };
    Some(Arc::new(ServiceFacts { name: "a-private".into(), cluster_ip: cluster_ip.parse().ok(), ports }))
}

fn endpoints(outcome: Option<Outcome>) -> RevisionEndpoints {
    let Some(Outcome::Set(_, endpoints)) = outcome else { panic!("{outcome:?} sets nothing") };
    *endpoints
}

fn addresses(pods: &[PodEndpoint]) -> Vec<String> {
    pods.iter().map(|pod| pod.address.to_string()).collect()
}

/// An index that knows revision `a`, of this protocol.
fn index(params: IndexParams, protocol: Protocol) -> EndpointIndex {
    let mut index = EndpointIndex::new(params);
    assert!(index.revision(&id("a"), revision(protocol)).is_some());
    index
}

#[test]
fn a_revision_is_its_spec_its_pods_its_service_and_its_activators() {
    let own = "10.1.0.2".parse().ok();
    let mut index =
        index(IndexParams { own, mesh: MeshMode::Auto, ..IndexParams::default() }, Protocol::Http1);
    index.service(&id("a"), service("10.96.0.7"));
    let activators = [address("10.1.0.1", true, HTTP), address("10.1.0.2", true, HTTP)];
    index.list(&key(Side::Public, "a"), list(activators));
    let pods = [address("10.0.0.2", false, HTTP), address("10.0.0.1", true, HTTP)];
    let a = endpoints(index.list(&key(Side::Private, "a-private"), list(pods)));
    assert_eq!(
        (addresses(&a.ready), addresses(&a.not_ready)),
        (vec!["10.0.0.1:8012".into()], vec!["10.0.0.2:8012".into()])
    );
    assert_eq!((a.ready[0].name.as_str(), a.ready[0].tls_address, a.starting), ("pod-10.0.0.1", None, 1));
    assert_eq!((a.container_concurrency, a.timeouts.total.as_secs()), (3.into(), 60));
    assert_eq!((a.cluster_ip, a.mesh, a.trust_probes), ("10.96.0.7:80".parse().ok(), MeshMode::Auto, true));
    assert_eq!(a.activators, ["10.1.0.1", "10.1.0.2"].map(|ip| ip.parse().unwrap()).into());
}

#[test]
fn facts_may_come_in_any_order_and_nobody_hears_of_what_is_no_revision() {
    let mut index = EndpointIndex::new(IndexParams::default());
    let pods = || list([address("10.0.0.1", true, HTTP)]);
    assert_eq!(index.list(&key(Side::Private, "p"), pods()), None);
    assert_eq!(index.service(&id("a"), service("10.96.0.7")), None);
    let late = endpoints(index.revision(&id("a"), revision(Protocol::Http1)));
    assert_eq!((late.ready.len(), late.cluster_ip.is_some()), (1, true));
    assert_eq!(index.revision(&id("a"), None), Some(Outcome::Gone(id("a"))));
    assert_eq!(index.list(&key(Side::Private, "p"), None), None);
    assert_eq!(index.service(&id("a"), None), None);
    assert!(index.known.is_empty(), "what is gone is forgotten");
}

#[test]
fn the_protocol_chooses_the_port() {
    let mut index = index(IndexParams::default(), Protocol::H2c);
    let pods = [address("10.0.0.1", true, HTTP2), address("10.0.0.2", true, HTTP)];
    let a = endpoints(index.list(&key(Side::Private, "p"), list(pods)));
    assert_eq!(addresses(&a.ready), ["10.0.0.1:8013"]);
}

#[test]
fn slices_add_up_and_a_pod_in_two_of_them_is_one_pod() {
    let mut index = index(IndexParams::default(), Protocol::Http1);
    index.list(
        &key(Side::Private, "p-1"),
        list([address("10.0.0.1", true, HTTP), address("10.0.0.2", true, HTTP)]),
    );
    let moved = [address("10.0.0.2", false, HTTP), address("10.0.0.3", true, HTTP)];
    let a = endpoints(index.list(&key(Side::Private, "p-2"), list(moved)));
    assert_eq!(addresses(&a.ready), ["10.0.0.1:8012", "10.0.0.2:8012", "10.0.0.3:8012"]);
    assert_eq!(addresses(&a.not_ready), [""; 0]);
    let a = endpoints(index.list(&key(Side::Private, "p-1"), None));
    assert_eq!(
        (addresses(&a.ready), addresses(&a.not_ready)),
        (vec!["10.0.0.3:8012".into()], vec!["10.0.0.2:8012".into()])
    );
}

#[test]
fn of_two_families_the_services_own_is_used() {
    let mut index = index(IndexParams::default(), Protocol::Http1);
    index.list(&key(Side::Private, "p-4"), list([address("10.0.0.1", true, HTTP)]));
    let both = endpoints(index.list(&key(Side::Private, "p-6"), list([address("fd00::1", true, HTTP)])));
    assert_eq!(addresses(&both.ready), ["10.0.0.1:8012"], "IPv4 while nobody says");
    let a = endpoints(index.service(&id("a"), service("fd00:96::7")));
    assert_eq!(addresses(&a.ready), ["[fd00::1]:8012"]);
}

#[test]
fn what_the_public_service_leads_to_in_place_of_activators_is_no_activator() {
    let own = "10.1.0.2".parse().ok();
    let mut index = index(IndexParams { own, ..IndexParams::default() }, Protocol::Http1);
    let a = endpoints(index.list(&key(Side::Public, "a"), list([address("10.0.0.1", true, HTTP)])));
    assert!(a.activators.is_empty(), "these are pods");
    let other_port =
        [address("10.1.0.1", true, HTTP2), address("10.1.0.2", true, HTTP), address("10.1.0.3", false, HTTP)];
    let a = endpoints(index.list(&key(Side::Public, "a"), list(other_port)));
    assert_eq!(a.activators, ["10.1.0.2".parse().unwrap()].into(), "ready, at the port of the protocol");
}

#[test]
fn pods_take_tls_where_the_cluster_says_so() {
    let mut index = index(IndexParams { over_tls: true, ..IndexParams::default() }, Protocol::Http1);
    let a = endpoints(index.list(&key(Side::Private, "p"), list([address("fd00::1", true, HTTP)])));
    assert_eq!(a.ready[0].tls_address, "[fd00::1]:8112".parse().ok());
}

#[test]
fn pods_that_a_mesh_addresses_have_the_private_services_name_and_no_other_way() {
    for mesh in [MeshMode::Auto, MeshMode::Enabled] {
        let params = IndexParams { mesh, pods_addressable_in_mesh: true, ..IndexParams::default() };
        let mut index = index(params, Protocol::Http1);
        let a = endpoints(index.service(&id("a"), service("10.96.0.7")));
        assert_eq!(
            (a.mesh_host.as_deref(), a.cluster_ip, a.mesh),
            (Some("a-private.shop"), None, MeshMode::Auto)
        );
    }
}
