//! The roll of the activators: who serves, who leaves and who is gone, by what each answers once a second. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::{RevisionId, Time};

use crate::facts::{PodFact, PodPhase};
use crate::peers::{ActivatorStatus, WorkloadActivity};

/// All activators.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    members: BTreeMap<String, RollMember>,
}

#[derive(Debug)]
struct RollMember {
    pod: Arc<PodFact>,
    status: ActivatorStatus,
    /// When it answered last, or came here.
    heard: Time,
    has_answered: bool,
    /// Whether the last attempt to connect failed.
    is_unreached: bool,
    /// Since when it leaves.
    leaving: Option<Time>,
}

/// An activator at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Peer {
    pub(crate) pod: Arc<PodFact>,
    pub(crate) state: PeerState,
    /// Ports of that version of the table that it could not bind.
    pub(crate) unbindable: BTreeSet<u16>,
}

/// The state of an activator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// The activator has not answered yet: nothing is to change for its sake.
    Unknown,
    /// The activator serves, and has bound the ports of this version of the table; empty: none yet.
    Serving {
        /// `resourceVersion` of the table.
        table_version: String,
    },
    /// The activator has been told to stop, and serves what still comes.
    Leaving {
        /// Since when.
        since: Time,
    },
    /// The activator does not answer, and either takes no connections or is not ready for its kubelet either.
    Gone,
}

impl Roll {
    /// A pod of the activators; `None`: it is gone.
    pub(crate) fn pod(&mut self, now: Time, name: &str, pod: Option<Arc<PodFact>>) {
        let Some(pod) = pod else {
            self.members.remove(name);
            return;
        };
        match self.members.get_mut(name).filter(|member| member.pod.uid == pod.uid) {
            Some(member) => {
                member.pod = pod;
                member.notice(now);
            }
            None => {
                let mut member = RollMember {
                    pod,
                    status: ActivatorStatus::default(),
                    heard: now,
                    has_answered: false,
                    is_unreached: false,
                    leaving: None,
                };
                member.notice(now);
                self.members.insert(name.to_owned(), member);
            }
        }
    }

    /// An activator has answered.
    pub(crate) fn answered(&mut self, now: Time, name: &str, status: ActivatorStatus) {
        if let Some(member) = self.members.get_mut(name) {
            (member.status, member.heard) = (status, now);
            (member.has_answered, member.is_unreached) = (true, false);
            member.notice(now);
        }
    }

    /// An activator has not answered; `is_unreached`: not even a connection could be made.
    pub(crate) fn silent(&mut self, name: &str, is_unreached: bool) {
        if let Some(member) = self.members.get_mut(name) {
            member.is_unreached = is_unreached;
        }
    }

    /// The activators that can be asked, and where.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&String, IpAddr)> {
        self.members.iter().filter_map(|(name, member)| Some((name, *member.pod.ips.first()?)))
    }

    /// The addresses of all activators: reports are taken from these.
    pub(crate) fn ips(&self) -> BTreeSet<IpAddr> {
        self.members.values().flat_map(|member| member.pod.ips.iter().copied()).collect()
    }

    /// All activators by name, as they are now.
    pub(crate) fn peers(&self, now: Time) -> BTreeMap<String, Peer> {
        let peer = |member: &RollMember| Peer {
            pod: Arc::clone(&member.pod),
            state: member.state(now),
            unbindable: member.status.unbindable.iter().copied().collect(),
        };
        self.members.iter().map(|(name, member)| (name.clone(), peer(member))).collect()
    }

    /// The requests of a workload, over all activators.
    pub(crate) fn activity(&self, id: &RevisionId) -> WorkloadActivity {
        let mut sum = WorkloadActivity::default();
        let of_each = self.members.values().filter_map(|member| member.status.workloads.get(id));
        for activity in of_each {
            sum.waiting += activity.waiting;
            for (pod, requests) in &activity.pods {
                *sum.pods.entry(pod.clone()).or_default() += requests;
            }
        }
        sum
    }

    /// Workloads with requests at some activator.
    pub(crate) fn busy(&self) -> BTreeSet<RevisionId> {
        self.members.values().flat_map(|member| member.status.workloads.keys().cloned()).collect()
    }
}

impl RollMember {
    /// Notices when it begins to leave, or does so no longer.
    fn notice(&mut self, now: Time) {
        let is_leaving = self.status.is_leaving || self.pod.phase == PodPhase::Terminating;
        self.leaving = is_leaving.then(|| self.leaving.unwrap_or(now));
    }

    fn state(&self, now: Time) -> PeerState {
        let is_late = now - self.heard >= LATE;
        // The kernel takes connections for a process that hangs; its kubelet finds it out.
        let is_unready = self.pod.phase == PodPhase::Starting;
        match self.leaving {
            // Before the rest: a process that is gone leaves no more.
            _ if is_late && (self.is_unreached || is_unready) => PeerState::Gone,
            Some(since) => PeerState::Leaving { since },
            None if self.has_answered && self.status.is_complete => {
                PeerState::Serving { table_version: self.status.table_version.clone() }
            }
            None => PeerState::Unknown,
        }
    }
}

/// An activator is gone if it has not answered for this long, and takes no connection or is not ready.
const LATE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::pretend::pod;

    fn at(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    fn status(table_version: &str) -> ActivatorStatus {
        ActivatorStatus {
            table_version: table_version.to_owned(),
            is_complete: true,
            ..ActivatorStatus::default()
        }
    }

    fn with_one() -> Roll {
        let mut roll = Roll::default();
        roll.pod(at(100), "a", Some(pod("a", "10.0.0.1", PodPhase::Ready)));
        roll
    }

    fn state(roll: &Roll, now: u64) -> PeerState {
        roll.peers(at(now))["a"].state.clone()
    }

    #[test]
    fn silence_alone_removes_nobody() {
        let mut roll = with_one();
        roll.answered(at(101), "a", status("7"));
        roll.silent("a", false);
        assert_eq!(state(&roll, 200), PeerState::Serving { table_version: "7".to_owned() });
    }

    #[test]
    fn an_activator_is_gone_once_it_is_late_and_takes_no_connection() {
        let mut roll = with_one();
        roll.answered(at(101), "a", status("7"));
        roll.silent("a", true);
        assert_ne!(state(&roll, 103), PeerState::Gone, "2 s late");
        assert_eq!(state(&roll, 104), PeerState::Gone);
        roll.answered(at(105), "a", status("8"));
        assert_eq!(state(&roll, 105), PeerState::Serving { table_version: "8".to_owned() });
    }

    #[test]
    fn an_activator_that_hangs_is_gone_once_its_kubelet_says_so_too() {
        let mut roll = with_one();
        roll.answered(at(101), "a", status("7"));
        roll.silent("a", false);
        roll.pod(at(103), "a", Some(pod("a", "10.0.0.1", PodPhase::Starting)));
        assert_ne!(state(&roll, 103), PeerState::Gone, "2 s late");
        assert_eq!(state(&roll, 104), PeerState::Gone);
        roll.answered(at(105), "a", status("7"));
        assert_eq!(state(&roll, 105), PeerState::Serving { table_version: "7".to_owned() });
    }

    #[test]
    fn nothing_is_known_of_an_activator_before_its_first_answer() {
        let mut roll = with_one();
        assert_eq!(state(&roll, 100), PeerState::Unknown);
        roll.silent("a", true);
        assert_eq!(state(&roll, 102), PeerState::Unknown);
        assert_eq!(state(&roll, 103), PeerState::Gone);
        roll.answered(at(104), "a", ActivatorStatus::default());
        assert_eq!(state(&roll, 104), PeerState::Unknown, "it has not listed everything");
    }

    #[test]
    fn an_activator_leaves_by_its_own_word_or_by_that_of_its_pod() {
        let mut roll = with_one();
        roll.answered(at(101), "a", ActivatorStatus { is_leaving: true, ..status("7") });
        assert_eq!(state(&roll, 101), PeerState::Leaving { since: at(101) });
        roll.answered(at(102), "a", status("7"));
        roll.pod(at(102), "a", Some(pod("a", "10.0.0.1", PodPhase::Terminating)));
        roll.answered(at(103), "a", status("7"));
        assert_eq!(state(&roll, 103), PeerState::Leaving { since: at(102) });
        roll.pod(at(103), "a", None);
        assert!(roll.peers(at(103)).is_empty() && roll.ips().is_empty());
    }

    #[test]
    fn requests_of_a_workload_are_counted_over_all_activators() {
        let mut roll = with_one();
        roll.pod(at(100), "b", Some(pod("b", "10.0.0.2", PodPhase::Ready)));
        let id = RevisionId::new("shop", "web");
        for (name, waiting) in [("a", 1), ("b", 2)] {
            let activity = WorkloadActivity { waiting, pods: [("web-1".to_owned(), waiting)].into() };
            let workloads = [(id.clone(), activity)].into();
            roll.answered(at(101), name, ActivatorStatus { workloads, ..status("7") });
        }
        let sum = roll.activity(&id);
        assert_eq!((sum.waiting, sum.pods["web-1"]), (3, 3));
        assert_eq!(roll.busy(), [id].into());
    }
}
