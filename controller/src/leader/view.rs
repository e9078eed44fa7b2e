//! A workload as the autoscaler sees it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use pilotlight_autoscaler::cluster::{Parents, Pod, PodPhase as ViewPhase, RevisionView, Scraping};
use pilotlight_core::{History, RevisionSpec, Trouble};

use super::seen::Seen;
use crate::facts::{PodFact, PodPhase};

/// The view of a workload that decisions are made about.
pub(crate) fn view(seen: &Seen, spec: Arc<RevisionSpec>, history: Arc<History>) -> RevisionView {
    let pods = &seen.workload.pods;
    let trouble = pods.iter().find_map(|(name, pod)| Some((name, pod.trouble.as_deref()?)));
    RevisionView {
        spec,
        path: seen.path.path,
        pods: pods.iter().map(|(name, fact)| pod(name, fact)).collect(),
        trouble: trouble.map(|(name, trouble)| Arc::<Trouble>::new(trouble.told(name))),
        history: Some(history),
        scraping: Scraping::default(),
        parents: Parents::default(),
    }
}

fn pod(name: &str, fact: &PodFact) -> Pod {
    // Only a pod that has not started yet has no address, and only ready ones are asked.
    let ip = fact.ips.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Pod {
        name: name.to_owned(),
        phase: match fact.phase {
            PodPhase::Pending | PodPhase::Starting => ViewPhase::Starting,
            PodPhase::Ready => ViewPhase::Ready,
            PodPhase::Terminating => ViewPhase::Terminating,
        },
        stats_address: SocketAddr::new(ip, STATS_PORT),
        metrics_address: SocketAddr::new(ip, METRICS_PORT),
        started: fact.started,
        waits_for: fact.waits_for.clone(),
    }
}

/// The queue-proxy's port for the autoscaler's scrapes.
const STATS_PORT: u16 = 9090;
/// The queue-proxy's port for Prometheus.
const METRICS_PORT: u16 = 9091;
