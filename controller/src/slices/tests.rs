use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::*;
use crate::facts::{ServicePort, TargetPort};

fn at(seconds: u64) -> Time {
    Time::from_secs(1_800_000_000 + seconds)
}

fn subject() -> SliceSubject {
    SliceSubject {
        namespace: "shop".to_owned(),
        service: "web".to_owned(),
        service_uid: "svc-1".to_owned(),
        autoscaler: "web-ra".to_owned(),
        autoscaler_uid: "ra-1".to_owned(),
        families: Families { v4: true, v6: false },
        prefers_near: false,
        names_pods: true,
    }
}

fn member(number: u32) -> Member {
    let ips = [format!("10.0.{}.{}", number / 250, number % 250 + 1), format!("fd00::{number:x}")];
    Member {
        namespace: "pilotlight-system".to_owned(),
        name: format!("activator-{number}"),
        uid: format!("uid-{number}"),
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        node: format!("node-{number}"),
        zone: "zone-a".to_owned(),
        stage: Stage::Serving,
    }
}

fn port(name: &str) -> ServicePort {
    ServicePort {
        name: name.to_owned(),
        port: 80,
        target: TargetPort::Name(name.to_owned()),
        transport: "TCP".to_owned(),
        app_protocol: if name == "grpc" { "grpc".to_owned() } else { String::new() },
    }
}

fn ports() -> Vec<SlicePort> {
    vec![SlicePort::of(&port("http"), 10_007), SlicePort::of(&port("grpc"), 10_008)]
}

fn json_of(slice: &EndpointSlice) -> Value {
    serde_json::to_value(slice).unwrap()
}

/// The slices as the API server has them.
fn stored(slices: &[EndpointSlice], version: &str) -> Vec<SliceFact> {
    let stored = |slice: &EndpointSlice| {
        let mut slice = slice.clone();
        slice.metadata.uid = Some(format!("uid-{}", slice.metadata.name.as_deref().unwrap()));
        slice.metadata.resource_version = Some(version.to_owned());
        SliceFact::read(&slice).unwrap().1
    };
    slices.iter().map(stored).collect()
}

#[test]
fn a_slice_of_activators_is_written_as_kubernetes_wants_it() {
    let leaving = Member { stage: Stage::Leaving { since: at(0) }, ..member(2) };
    let slices = wanted_of_activators(at(1), &subject(), &ports(), &[member(1), leaving], &[]);
    let [slice] = slices.as_slice() else { panic!("{slices:?}") };
    let name = slice.metadata.name.clone().unwrap();
    let endpoint = |number: u32, ready: bool| {
        json!({
            "addresses": [format!("10.0.0.{}", number + 1)],
            "conditions": {"ready": ready, "serving": true, "terminating": !ready},
            "nodeName": format!("node-{number}"), "zone": "zone-a",
            "targetRef": {"kind": "Pod", "namespace": "pilotlight-system", "name": format!("activator-{number}"),
                "uid": format!("uid-{number}")}})
    };
    let expected = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": name,
            "labels": {"kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "pilotlight.dev"},
            "annotations": {"pilotlight.dev/standing-since": "2027-01-15T08:00:01Z",
                "pilotlight.dev/changed": "2027-01-15T08:00:01Z"},
            "ownerReferences": [{"apiVersion": "pilotlight.dev/v1alpha1", "kind": "RequestAutoscaler",
                "name": "web-ra", "uid": "ra-1", "controller": true}]},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 10007, "protocol": "TCP"},
            {"name": "grpc", "port": 10008, "protocol": "TCP", "appProtocol": "grpc"}],
        "endpoints": [endpoint(1, true), endpoint(2, false)]});
    assert_eq!(json_of(slice), expected);
    assert!(name.starts_with("web-pilotlight-") && name.len() < 64, "{name}");
}

#[test]
fn each_family_of_the_service_has_its_slice() {
    let both = SliceSubject { families: Families { v4: true, v6: true }, ..subject() };
    let slices = wanted_of_activators(at(0), &both, &ports(), &[member(1), member(2)], &[]);
    let kinds: Vec<_> =
        slices.iter().map(|slice| (slice.address_type.as_str(), slice.endpoints.len())).collect();
    assert_eq!(kinds, [("IPv4", 2), ("IPv6", 2)]);
    assert_ne!(slices[0].metadata.name, slices[1].metadata.name);
    let only_v4 = Member { ips: vec!["10.0.0.9".parse().unwrap()], ..member(9) };
    assert_eq!(wanted_of_activators(at(0), &both, &ports(), &[only_v4], &[]).len(), 1);
}

#[test]
fn hints_are_on_every_endpoint_or_on_none() {
    let near = SliceSubject { prefers_near: true, ..subject() };
    let nowhere = Member { zone: String::new(), ..member(2) };
    let hints = |subject: &SliceSubject, members: &[Member]| -> Vec<Value> {
        let slices = wanted_of_activators(at(0), subject, &ports(), members, &[]);
        json_of(&slices[0])["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|each| each["hints"].clone())
            .collect()
    };
    let hint = |node: &str| json!({"forZones": [{"name": "zone-a"}], "forNodes": [{"name": node}]});
    assert_eq!(hints(&near, &[member(1), member(2)]), [hint("node-1"), hint("node-2")]);
    assert_eq!(hints(&near, &[member(1), nowhere]), [Value::Null, Value::Null]);
    assert_eq!(hints(&subject(), &[member(1)]), [Value::Null]);
}

#[test]
fn no_pod_is_named_in_an_ambient_mesh() {
    let ambient = SliceSubject { names_pods: false, ..subject() };
    let slices = wanted_of_activators(at(0), &ambient, &ports(), &[member(1)], &[]);
    assert_eq!(slices[0].endpoints[0].target_ref, None);
}

#[test]
fn a_slice_has_a_hundred_endpoints_and_members_stay_where_they_are() {
    let place = |slices: &[EndpointSlice]| -> BTreeMap<String, String> {
        let named = slices.iter().flat_map(|slice| {
            let name = slice.metadata.name.clone().unwrap();
            slice.endpoints.iter().map(move |each| (each.addresses[0].clone(), name.clone()))
        });
        named.collect()
    };
    let members: Vec<Member> = (1..=230).map(member).collect();
    let first = wanted_of_activators(at(0), &subject(), &ports(), &members, &[]);
    assert_eq!(first.iter().map(|slice| slice.endpoints.len()).collect::<Vec<_>>(), [100, 100, 30]);

    let others: Vec<Member> = (31..=240).map(member).collect();
    let second = wanted_of_activators(at(1), &subject(), &ports(), &others, &stored(&first, "1"));
    let (before, after) = (place(&first), place(&second));
    assert_eq!(after.len(), 210);
    assert!(second.iter().all(|slice| slice.endpoints.len() <= 100));
    assert!(after.iter().all(|(ip, name)| before.get(ip).is_none_or(|before| before == name)));
}

#[test]
fn slices_of_pods_are_split_by_numbers_of_ports_and_owned_by_the_service() {
    let pod = |number: u32, ports: &[(&str, u16)]| PodMember {
        member: member(number),
        ports: ports.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(),
    };
    let pods = [
        pod(1, &[("http", 8080), ("grpc", 9090)]),
        pod(2, &[("http", 8081), ("grpc", 9090)]),
        pod(3, &[("http", 8080), ("grpc", 9090)]),
        pod(4, &[("http", 8080)]),
        pod(5, &[]),
    ];
    let slices = wanted_of_pods(at(0), &subject(), &[port("http"), port("grpc")], &pods, &[]);
    let mut seen: Vec<(Vec<i32>, usize)> = slices
        .iter()
        .map(|slice| {
            (slice.ports.iter().flatten().filter_map(|port| port.port).collect(), slice.endpoints.len())
        })
        .collect();
    seen.sort();
    assert_eq!(seen, [(vec![8080], 1), (vec![8080, 9090], 2), (vec![8081, 9090], 1)]);
    for fact in stored(&slices, "1") {
        let owner =
            SliceOwner { kind: "Service".to_owned(), name: "web".to_owned(), uid: "svc-1".to_owned() };
        assert_eq!((fact.owner.as_ref(), fact.kind()), (Some(&owner), SliceKind::Pods));
    }
}

#[test]
fn names_of_long_services_are_cut_and_stay_apart() {
    let name = |service: &str| {
        let subject = SliceSubject { service: service.to_owned(), ..subject() };
        wanted_of_activators(at(0), &subject, &ports(), &[member(1)], &[])[0].metadata.name.clone().unwrap()
    };
    let long = "a-service-whose-name-is-as-long-as-names-may-be";
    let (one, other) = (name(&format!("{long}-1")), name(&format!("{long}-2")));
    assert_ne!(one, other);
    assert!(one.starts_with("a-service-whose-name-is-as-long-as-names-pilotlight-"), "{one}");
    assert_eq!(name("web"), name("web"));
}

#[test]
fn the_same_state_again_leads_to_no_write() {
    let members = [member(1), member(2)];
    let near = SliceSubject { prefers_near: true, ..subject() };
    let first = wanted_of_activators(at(0), &near, &ports(), &members, &[]);
    let writes = changes(&[], &first);
    assert!(matches!(writes.as_slice(), [SliceWrite::Create(_)]));

    let mut seen = first.clone();
    // An older API server drops hints for nodes.
    for endpoint in &mut seen[0].endpoints {
        endpoint.hints.as_mut().unwrap().for_nodes = None;
    }
    let seen = stored(&seen, "1");
    assert_eq!(changes(&seen, &wanted_of_activators(at(9), &near, &ports(), &members, &seen)), []);
    assert_eq!(changes(&seen, &[retained(at(9), &near, &seen[0], &members).unwrap()]), []);
}

#[test]
fn a_change_keeps_the_name_and_the_time_since_when_it_stands() {
    let first = stored(&wanted_of_activators(at(0), &subject(), &ports(), &[member(1)], &[]), "7");
    let second = wanted_of_activators(at(9), &subject(), &ports(), &[member(1), member(2)], &first);
    let writes = changes(&first, &second);
    let [SliceWrite::Replace(slice)] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(slice.metadata.name.as_deref(), Some(first[0].name.as_str()));
    assert_eq!(slice.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(slice.metadata.uid.as_deref(), Some(first[0].uid.as_str()));
    let fact = SliceFact::read(slice).unwrap().1;
    assert_eq!((fact.standing_since, fact.changed), (Some(at(0)), Some(at(9))));

    // Neither at other ports nor with nobody in common does it stand as it did.
    let since = |ports: &[SlicePort], members: &[Member]| {
        stored(&wanted_of_activators(at(9), &subject(), ports, members, &first), "8")[0].standing_since
    };
    assert_eq!(since(&ports(), &[member(2)]), Some(at(9)));
    assert_eq!(since(&ports()[..1], &[member(1)]), Some(at(9)));
}

#[test]
fn ours_that_is_not_wanted_goes_and_nobody_elses() {
    let ours = stored(&wanted_of_activators(at(0), &subject(), &ports(), &[member(1)], &[]), "7").remove(0);
    let other = SliceFact { name: "web-abc".to_owned(), managed_by: NATIVE.to_owned(), ..ours.clone() };
    let writes = changes(&[ours.clone(), other], &[]);
    let delete = SliceWrite::Delete {
        name: ours.name.clone(),
        uid: ours.uid.clone(),
        resource_version: "7".to_owned(),
    };
    assert_eq!(writes, [delete]);
}

#[test]
fn a_slice_that_lost_its_label_is_ours_and_gets_it_back() {
    let wanted = wanted_of_activators(at(0), &subject(), &ports(), &[member(1)], &[]);
    let mut seen = stored(&wanted, "7").remove(0);
    seen.managed_by.clear();
    assert_eq!(seen.kind(), SliceKind::Activators);
    let writes = changes(&[seen], &wanted);
    assert!(matches!(writes.as_slice(), [SliceWrite::Replace(_)]), "{writes:?}");
}

#[test]
fn slices_of_others_are_told_by_their_keeper() {
    let kind = |labels: Value| {
        let slice = json!({
            "metadata": {"namespace": "shop", "name": "web-x", "labels": labels}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]});
        let (name, fact) = SliceFact::read(&serde_json::from_value(slice).unwrap()).unwrap();
        assert_eq!((name.name.as_str(), fact.endpoints.len()), ("web-x", 2));
        let [first, second] = fact.endpoints.as_slice() else { panic!() };
        // What is not written about readiness is as Kubernetes says.
        assert!(first.is_ready && first.is_serving && !first.is_terminating && !second.is_serving);
        fact.kind()
    };
    assert_eq!(kind(json!({MANAGED_BY: NATIVE})), SliceKind::Native);
    assert_eq!(kind(json!({MANAGED_BY: MIRROR})), SliceKind::Mirror);
    assert_eq!(kind(json!({MANAGED_BY: "else.example.com"})), SliceKind::Foreign);
    assert_eq!(kind(json!({})), SliceKind::Foreign);
}
