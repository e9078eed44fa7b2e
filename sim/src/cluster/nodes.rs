//! The nodes of a cluster: which pod goes where, when a node is asked for, and when one goes.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::Time;

use super::{Capacity, ClusterSpec, NodeGroup, Placement};

/// All nodes, by number. Numbers are never used twice, so the order is that of age.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    nodes: BTreeMap<u32, Node>,
    next_number: u32,
    /// How many pods have room on one node.
    room: u32,
    placement: Placement,
    max_starting: u32,
    group: Option<NodeGroup>,
    /// The time that nodes had existed when they were removed, together.
    past_nanos: u128,
}

#[derive(Clone, Debug)]
struct Node {
    /// The time the node came up, or will.
    up_at: Time,
    is_up: bool,
    /// Pods that have their place here.
    pods: u32,
    /// Pods on the node that are starting.
    starting: u32,
    /// Since when there has been none; `None` while there are pods, and until it is up.
    empty_since: Option<Time>,
    /// The time the image was, or will have been, pulled for the first time.
    image_at: Option<Time>,
}

/// Nodes that a scan adds and removes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// The number of the first node that was asked for, and how many.
    pub(super) asked: std::ops::Range<u32>,
    /// The nodes that went.
    pub(super) removed: Vec<u32>,
}

impl Nodes {
    pub(super) fn new(now: Time, spec: &ClusterSpec) -> Self {
        let (count, room, group) = match &spec.capacity {
            Capacity::Unlimited => (1, u32::MAX, None),
            Capacity::Fixed { nodes, room } => (*nodes, room.pods(), None),
            Capacity::Group(group) => (group.initial, group.room.pods(), Some(*group)),
        };
        let first = Node {
            up_at: now,
            is_up: true,
            pods: 0,
            starting: 0,
            empty_since: Some(now),
            image_at: spec.image_on_first_nodes.then_some(now),
        };
        Nodes {
            nodes: (0..count).map(|number| (number, first.clone())).collect(),
            next_number: count,
            room,
            placement: spec.placement,
            max_starting: spec.max_starting_per_node.unwrap_or(u32::MAX),
            group,
            past_nanos: 0,
        }
    }

    /// Takes a place on a node, if any has one.
    pub(super) fn place(&mut self) -> Option<u32> {
        let with_room = self.nodes.iter_mut().filter(|(_, node)| node.is_up && node.pods < self.room);
        let (&number, node) = match self.placement {
            Placement::Spread => with_room.min_by_key(|(_, node)| node.pods),
            // Equals: the last one is taken, hence the order turned round.
            Placement::Pack => with_room.rev().max_by_key(|(_, node)| node.pods),
        }?;
        node.pods += 1;
        node.empty_since = None;
        Some(number)
    }

    /// Gives a place back.
    pub(super) fn leave(&mut self, now: Time, number: u32) {
        let node = self.node(number);
        node.pods -= 1;
        if node.pods == 0 {
            node.empty_since = Some(now);
        }
    }

    /// Whether one more pod may start on this node.
    pub(super) fn may_start(&self, number: u32) -> bool {
        self.nodes.get(&number).is_some_and(|node| node.starting < self.max_starting)
    }

    pub(super) fn begin_start(&mut self, number: u32) {
        self.node(number).starting += 1;
    }

    pub(super) fn end_start(&mut self, number: u32) {
        self.node(number).starting -= 1;
    }

    /// The time the image is there for a pod that starts now, and whether it had to be fetched. A pod that comes while
    /// another fetches it waits for that.
    pub(super) fn pull(
        &mut self,
        now: Time,
        number: u32,
        pull: Duration,
        cached_pull: Duration,
    ) -> (Time, bool) {
        let node = self.node(number);
        match node.image_at {
            Some(image_at) => (image_at.max(now + cached_pull), false),
            None => {
                node.image_at = Some(now + pull);
                (now + pull, true)
            }
        }
    }

    /// The node that was asked for is there.
    pub(super) fn come_up(&mut self, now: Time, number: u32) {
        let node = self.node(number);
        (node.is_up, node.empty_since) = (true, Some(now));
    }

    /// The time of the next scan that would change something, if nothing else happens.
    pub(super) fn next_scan(&self, now: Time, pending: usize) -> Option<Time> {
        let group = self.group?;
        if self.wanted(&group, pending) > 0 {
            return Some(first_scan(now, &group));
        }
        if self.count() <= group.min {
            return None;
        }
        let empty = self.nodes.values().filter_map(|node| node.empty_since).min()?;
        // Never in the past: nodes kept by the minimum may be overdue when another one comes.
        Some(goes_at(empty, &group).max(first_scan(now, &group)))
    }

    /// Asks for as many nodes as the pending pods need, and removes those that have been empty for long. `provision`
    /// is how long the nodes take to come.
    pub(super) fn scan(&mut self, now: Time, pending: usize, provision: Duration) -> Scan {
        let Some(group) = self.group else { return Scan::default() };
        let wanted = self.wanted(&group, pending);
        let asked = self.next_number..self.next_number + wanted;
        let asked_for = Node {
            up_at: now + provision,
            is_up: false,
            pods: 0,
            starting: 0,
            empty_since: None,
            image_at: None,
        };
        self.nodes.extend(asked.clone().map(|number| (number, asked_for.clone())));
        self.next_number = asked.end;

        let can_go = self.count().saturating_sub(group.min) as usize;
        let is_due = |node: &Node| node.empty_since.is_some_and(|since| goes_at(since, &group) <= now);
        // The youngest first: the oldest are the likeliest to have the image.
        let due = self.nodes.iter().rev().filter(|(_, node)| is_due(node));
        let removed: Vec<u32> = due.map(|(&number, _)| number).take(can_go).collect();
        for number in &removed {
            if let Some(node) = self.nodes.remove(number) {
                self.past_nanos += now.since(node.up_at).as_nanos();
            }
        }
        Scan { asked, removed }
    }

    /// Nodes that are up, and nodes that were asked for and are not.
    pub(super) fn up_and_coming(&self) -> (u32, u32) {
        let up = self.nodes.values().filter(|node| node.is_up).count() as u32;
        (up, self.count() - up)
    }

    /// How many nodes the pending pods need beyond those that are coming.
    fn wanted(&self, group: &NodeGroup, pending: usize) -> u32 {
        let coming = self.up_and_coming().1;
        let needed = pending.div_ceil(self.room as usize).saturating_sub(coming as usize);
        let can_come = group.max.saturating_sub(self.count());
        u32::try_from(needed).unwrap_or(u32::MAX).min(can_come)
    }

    fn count(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// A node that has pods, or is coming: those are never removed.
    fn node(&mut self, number: u32) -> &mut Node {
        self.nodes.get_mut(&number).expect("a node in use is there")
    }
}

/// A node that a scan has found empty goes in the first scan after the idle time.
fn goes_at(empty_since: Time, group: &NodeGroup) -> Time {
    first_scan(first_scan(empty_since, group) + group.idle, group)
}

/// The first scan at or after `time`. Scans begin at the epoch.
fn first_scan(time: Time, group: &NodeGroup) -> Time {
    let scan = u64::try_from(group.scan.as_nanos()).unwrap_or(u64::MAX);
    Time::from_nanos(time.as_nanos().div_ceil(scan).saturating_mul(scan))
}
