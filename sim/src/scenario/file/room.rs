//! The cluster of a scenario: how much room there is, and how it grows.

use pilotlight_config::Findings;
use pilotlight_config::workload::manifest::Node;
use pilotlight_core::Time;

use super::fields;
use crate::cluster::{
    Capacity, Cluster, ClusterSpec, DEFAULT_IDLE, DEFAULT_SCAN, NodeGroup, Placement, Room,
};
use crate::read::{flag, millicores, positive_time, time, whole, word};

pub(super) fn cluster(node: &Node<'_>, app: &Node<'_>, findings: &mut Findings) -> ClusterSpec {
    fields::CLUSTER.check(node, findings);
    let spec = ClusterSpec {
        capacity: capacity(node, app, findings).unwrap_or_default(),
        placement: word(&node.child("placement"), PLACEMENTS, findings).unwrap_or_default(),
        max_starting: whole(&node.child("max-starting"), 1, u32::MAX, findings),
        max_starting_per_node: whole(&node.child("max-starting-per-node"), 1, u32::MAX, findings),
        image_on_first_nodes: flag(&node.child("image-on-first-nodes"), findings).unwrap_or_default(),
    };
    if let Err(faults) = Cluster::new(Time::EPOCH, &spec) {
        findings.faults.extend(faults.into_vec().into_iter().map(|fault| fault.below(&node.path)));
    }
    spec
}

fn capacity(node: &Node<'_>, app: &Node<'_>, findings: &mut Findings) -> Option<Capacity> {
    let (pods, nodes) = (node.child("pods"), node.child("nodes"));
    let room_fields = ["pods-per-node", "cores-per-node", "cores-per-pod"].map(|name| node.child(name));
    if pods.is_present() {
        for other in [&nodes].into_iter().chain(&room_fields).filter(|other| other.is_present()) {
            other.fault("stands beside `pods`, which says how much room there is in all", findings);
        }
        return Some(Capacity::Fixed { nodes: 1, room: Room::Pods(whole(&pods, 1, u32::MAX, findings)?) });
    }
    if !nodes.is_present() {
        for field in room_fields.iter().filter(|field| field.is_present()) {
            field.fault("means nothing without `nodes`", findings);
        }
        return None;
    }
    let room = room(node, app, findings);
    if !nodes.value.is_some_and(serde_json::Value::is_object) {
        let nodes = whole(&nodes, 1, u32::MAX, findings)?;
        return Some(Capacity::Fixed { nodes, room: room? });
    }
    fields::NODES.check(&nodes, findings);
    let max = nodes.child("max");
    if !max.is_present() {
        max.fault("is missing: how many nodes there can be", findings);
    }
    let max = whole(&max, 1, u32::MAX, findings);
    let min = whole(&nodes.child("min"), 0, u32::MAX, findings);
    let initial = whole(&nodes.child("initial"), 0, u32::MAX, findings);
    let scan = positive_time(&nodes.child("scan"), findings).unwrap_or(DEFAULT_SCAN);
    let idle = time(&nodes.child("idle"), findings).unwrap_or(DEFAULT_IDLE);
    let initial = initial.or(min).unwrap_or(1);
    let min = min.unwrap_or(initial);
    Some(Capacity::Group(NodeGroup { initial, min, max: max?, room: room?, scan, idle }))
}

/// Pods, or cores: a pod asks for those of the app unless something else is written.
fn room(node: &Node<'_>, app: &Node<'_>, findings: &mut Findings) -> Option<Room> {
    let by_pods = node.child("pods-per-node");
    let (on_node, of_pod) = (node.child("cores-per-node"), node.child("cores-per-pod"));
    match (by_pods.is_present(), on_node.is_present()) {
        (true, true) => by_pods.fault("stands beside `cores-per-node`, and one is needed", findings),
        (false, false) => by_pods.fault("is missing; or write `cores-per-node`", findings),
        (true, false) => {
            if of_pod.is_present() {
                of_pod.fault("means nothing without `cores-per-node`", findings);
            }
            return Some(Room::Pods(whole(&by_pods, 1, u32::MAX, findings)?));
        }
        (false, true) => {
            let of_pod = if of_pod.is_present() { of_pod } else { app.child("cores") };
            if !of_pod.is_present() {
                node.child("cores-per-pod")
                    .fault("is missing, and `app.cores` is not written either", findings);
            }
            return Some(Room::Cores {
                node_millicores: millicores(&on_node, findings)?,
                pod_millicores: millicores(&of_pod, findings)?,
            });
        }
    }
    None
}

const PLACEMENTS: &[(&str, Placement)] = &[("spread", Placement::Spread), ("pack", Placement::Pack)];
