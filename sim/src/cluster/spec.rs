//! The parts of a simulated cluster, as a user describes it, and what is wrong with such a description.

use std::time::Duration;

use pilotlight_config::{Fault, Faults};

/// A cluster: its room, how pods are spread over it, and how many may start at once. By default there is room for
/// everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSpec {
    /// How many pods have room.
    pub capacity: Capacity,
    /// The node that a pod goes to.
    pub placement: Placement,
    /// How many pods may start (pull, initialise, become ready) at once in the whole cluster; `None`: any number.
    pub max_starting: Option<u32>,
    /// Pods that may be starting at once on each node; `None`: any number.
    pub max_starting_per_node: Option<u32>,
    /// Whether the nodes that are there from the beginning have the image already. Nodes that come later never do.
    pub image_on_first_nodes: bool,
}

/// How much room a cluster has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Capacity {
    /// One node without an end.
    #[default]
    Unlimited,
    /// Nodes that neither come nor go.
    Fixed {
        /// How many.
        nodes: u32,
        /// The room on each.
        room: Room,
    },
    /// Nodes that come when pods have no room, and go when they are empty.
    Group(NodeGroup),
}

/// How many pods have room on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A number of pods.
    Pods(u32),
    /// As many as their requests fit into its cores.
    Cores {
        /// The cores of a node that pods can have, in thousandths.
        node_millicores: u32,
        /// The cores each pod requests, in thousandths.
        pod_millicores: u32,
    },
}

impl Room {
    /// The number of pods.
    pub fn pods(self) -> u32 {
        match self {
            Room::Pods(pods) => pods,
            Room::Cores { node_millicores, pod_millicores } => {
                node_millicores.checked_div(pod_millicores).unwrap_or(0)
            }
        }
    }
}

/// Nodes that come and go, after the manner of the Kubernetes cluster autoscaler. How long a node takes to come is
/// said by the pod that makes it come: [`Phases::provision`](super::Phases::provision).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeGroup {
    /// How many nodes there are at the beginning.
    pub initial: u32,
    /// The fewest nodes.
    pub min: u32,
    /// The most nodes.
    pub max: u32,
    /// The room on each.
    pub room: Room,
    /// How often pods without room and empty nodes are looked for.
    pub scan: Duration,
    /// How long a node is empty before it goes.
    pub idle: Duration,
}

impl NodeGroup {
    /// A group that begins at its smallest, with [`DEFAULT_SCAN`] and [`DEFAULT_IDLE`].
    pub fn new(min: u32, max: u32, room: Room) -> Self {
        NodeGroup { initial: min, min, max, room, scan: DEFAULT_SCAN, idle: DEFAULT_IDLE }
    }
}

/// The cluster autoscaler's own.
pub const DEFAULT_SCAN: Duration = Duration::from_secs(10);

/// Stands for two defaults of the cluster autoscaler at once: a node goes after 10 minutes without need, and none
/// goes within 10 minutes of the last addition.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(15 * 60);

/// The choice among nodes with room. Among equals it is the oldest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The one with the fewest pods, as Kubernetes does unless told otherwise (`LeastAllocated`).
    #[default]
    Spread,
    /// The one with the most (`MostAllocated`): nodes empty sooner, and pull the image less often.
    Pack,
}

impl ClusterSpec {
    /// All that is wrong, by field.
    pub(super) fn check(&self) -> Result<(), Faults> {
        let mut faults = Vec::new();
        let mut positive = |key: &str, value: u32| {
            if value == 0 {
                faults.push(Fault::new(key, "0", "must be at least 1"));
            }
        };
        self.max_starting.inspect(|&limit| positive("max_starting", limit));
        self.max_starting_per_node.inspect(|&limit| positive("max_starting_per_node", limit));
        match &self.capacity {
            Capacity::Unlimited => {}
            Capacity::Fixed { nodes, room } => {
                positive("nodes", *nodes);
                room.check(&mut faults);
            }
            Capacity::Group(group) => {
                positive("max", group.max);
                group.room.check(&mut faults);
                group.check(&mut faults);
            }
        }
        Faults::all(faults).map_or(Ok(()), Err)
    }
}

impl Room {
    fn check(self, faults: &mut Vec<Fault>) {
        match self {
            Room::Pods(0) => faults.push(Fault::new("room", "0", "leaves no room for a pod on a node")),
            Room::Cores { pod_millicores: 0, .. } => {
                faults.push(Fault::new("room", "0m", "is no request: a pod must ask for a part of a core"));
            }
            Room::Cores { node_millicores, pod_millicores } if self.pods() == 0 => {
                let rule = format!("is too small a node: a pod asks for {pod_millicores}m");
                faults.push(Fault::new("room", format!("{node_millicores}m"), rule));
            }
            Room::Pods(_) | Room::Cores { .. } => {}
        }
    }
}

impl NodeGroup {
    fn check(&self, faults: &mut Vec<Fault>) {
        let NodeGroup { initial, min, max, .. } = *self;
        if min > max {
            faults.push(Fault::new("min", min.to_string(), format!("is more than the maximum, {max}")));
        } else if !(min..=max).contains(&initial) {
            let rule = format!("is not between the minimum, {min}, and the maximum, {max}");
            faults.push(Fault::new("initial", initial.to_string(), rule));
        }
        if self.scan.is_zero() {
            faults.push(Fault::new("scan", "0s", "must be above 0s"));
        }
    }
}
