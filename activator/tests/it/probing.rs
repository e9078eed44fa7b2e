//! Pods that are asked before they are used, and the way round a mesh.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_activator::ProbeParams;
use pilotlight_core::{MeshMode, PodEndpoint, PodProbe};
use pilotlight_net::{Body, Client, Drain, Handler, Request, Response};
use tokio::net::TcpListener;

use crate::harness::{FakePod, World, eventually, listen, outcome, pod_at, revision};

/// A pod behind its queue-proxy: it says whether it takes requests, and takes them.
#[derive(Clone)]
struct ProbedPod {
    address: SocketAddr,
    notes: Arc<Mutex<Notes>>,
}

struct Notes {
    /// Status and body of its answer to a probe.
    answer: (u16, &'static str),
    probes: Vec<http::request::Parts>,
    requests: usize,
    /// Headers of the last request that was no probe.
    last: Option<http::HeaderMap>,
    /// Connections, by the address at their other end.
    peers: BTreeSet<SocketAddr>,
}

impl ProbedPod {
    async fn start(status: u16, body: &'static str) -> ProbedPod {
        let (address, listener) = listen().await;
        let notes =
            Notes { answer: (status, body), probes: vec![], requests: 0, last: None, peers: BTreeSet::new() };
        let pod = ProbedPod { address, notes: Arc::new(Mutex::new(notes)) };
        tokio::spawn(pilotlight_net::serve(listener, Arc::new(pod.clone()), Drain::default()));
        pod
    }

    /// One that takes requests.
    async fn ready() -> ProbedPod {
        ProbedPod::start(200, "queue").await
    }

    fn endpoint(&self) -> PodEndpoint {
        pod_at(self.address)
    }

    fn answer(&self, status: u16, body: &'static str) {
        self.notes.lock().answer = (status, body);
    }

    fn probes(&self) -> usize {
        self.notes.lock().probes.len()
    }

    fn requests(&self) -> usize {
        self.notes.lock().requests
    }

    /// Waits until it has been probed and the answer has been thought over: by the next probe.
    async fn probed_again(&self) {
        let before = self.probes();
        eventually("the pod is probed again", || self.probes() >= before + 2).await;
    }
}

impl Handler for ProbedPod {
    async fn handle(&self, client: &Client, request: Request) -> Response {
        let mut notes = self.notes.lock();
        notes.peers.insert(client.address());
        let (status, body) = if request.headers().contains_key("k-network-probe") {
            notes.probes.push(request.into_parts().0);
            notes.answer
        } else {
            notes.requests += 1;
            notes.last = Some(request.headers().clone());
            (200, "pod")
        };
        let mut response = Response::new(Body::full(body));
        *response.status_mut() = status.try_into().expect("a status");
        response
    }
}

async fn start(mesh: MeshMode) -> World {
    let mut revision = revision(10);
    revision.mesh = mesh;
    let probing = ProbeParams { interval: Duration::from_millis(5), ..ProbeParams::default() };
    World::start_with(revision, |params| params.probing = probing).await
}

#[tokio::test]
async fn a_pod_that_is_not_said_to_be_ready_is_used_as_soon_as_it_passes() {
    let (world, pod) = (start(MeshMode::Disabled).await, ProbedPod::start(503, "").await);
    world.set(|revision| revision.not_ready = vec![pod.endpoint()]);
    let sent = world.get_queued("/").await;
    pod.probed_again().await;
    assert_eq!(world.queued(), 1, "it has not passed");
    pod.answer(200, "queue");
    assert_eq!(outcome(sent).await, (200, "pod".to_owned()));

    let notes = pod.notes.lock();
    let probe = &notes.probes[0];
    assert_eq!((probe.method.as_str(), probe.uri.path()), ("GET", "/healthz"));
    let header = |name: &str| probe.headers[name].to_str().expect("text").to_owned();
    assert_eq!(header("k-network-probe"), "queue");
    assert_eq!(header("user-agent"), "Knative-Activator-Probe");
    assert_eq!(header("host"), pod.address.to_string());
    assert_eq!(notes.peers.len(), 1, "the request goes over the probe's connection");
}

#[tokio::test]
async fn a_pod_that_a_mesh_addresses_is_told_by_its_services_name() {
    let (world, pod) = (start(MeshMode::Auto).await, ProbedPod::ready().await);
    world.set(|revision| {
        revision.mesh_host = Some("hello-private.default".to_owned());
        revision.not_ready = vec![pod.endpoint()];
    });
    assert_eq!(outcome(world.get()).await.0, 200);
    let notes = pod.notes.lock();
    for headers in [&notes.probes[0].headers, notes.last.as_ref().expect("a request")] {
        let all = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("host"), ["hello-private.default"]);
        assert_eq!(all("k-passthrough-lb"), ["true"]);
    }
}

#[tokio::test]
async fn only_the_exact_answer_passes() {
    let (world, pod) = (start(MeshMode::Disabled).await, ProbedPod::start(200, "queue\n").await);
    world.set(|revision| revision.not_ready = vec![pod.endpoint()]);
    let sent = world.get_queued("/").await;
    for (status, body) in [(200, "queue\n"), (200, ""), (200, "hello"), (404, "queue"), (500, "queue")] {
        pod.answer(status, body);
        pod.probed_again().await;
        assert_eq!(world.queued(), 1, "{status} {body:?}");
    }
    pod.answer(200, "queue");
    assert_eq!(outcome(sent).await.0, 200);
}

#[tokio::test]
async fn pods_taken_at_their_word_are_never_probed() {
    let (world, pod) = (start(MeshMode::Disabled).await, ProbedPod::start(500, "").await);
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(world.get()).await.0, 200);
    assert_eq!(pod.probes(), 0);
}

#[tokio::test]
async fn nobody_is_probed_any_more_once_all_have_passed() {
    let (world, pod, late) =
        (start(MeshMode::Auto).await, ProbedPod::ready().await, ProbedPod::start(500, "").await);
    world.set(|revision| revision.ready = vec![pod.endpoint(), late.endpoint()]);
    late.probed_again().await;
    late.answer(200, "queue");
    eventually("both are used", || world.pods().len() == 2).await;
    assert_eq!(pod.probes(), 1);
    let probes = late.probes();
    assert_eq!(outcome(world.get()).await.0, 200);
    assert_eq!(outcome(world.get()).await.0, 200);
    assert_eq!(late.probes(), probes);
}

#[tokio::test]
async fn a_silent_pod_does_not_keep_others_waiting() {
    let (world, pod) = (start(MeshMode::Auto).await, ProbedPod::ready().await);
    // A listener that accepts connections and says nothing.
    let (silent, _listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod.endpoint(), pod_at(silent)]);
    assert_eq!(outcome(world.get()).await.0, 200);
    assert_eq!(pod.requests(), 1);
}

#[tokio::test]
async fn where_a_mesh_is_in_the_way_requests_go_to_the_cluster_ip() {
    let (world, cluster_ip) = (start(MeshMode::Auto).await, ProbedPod::ready().await);
    let behind_mesh = ProbedPod::start(503, "").await;
    world.set(|revision| {
        revision.ready = vec![behind_mesh.endpoint()];
        revision.cluster_ip = Some(cluster_ip.address);
    });
    assert_eq!(outcome(world.get()).await.0, 200);
    assert_eq!((behind_mesh.requests(), cluster_ip.requests()), (0, 1));
    // Answers of pods do not count any more: only the number of ready ones does.
    world.set(|revision| {
        revision.not_ready = std::mem::take(&mut revision.ready);
    });
    let sent = world.get_queued("/").await;
    world.set(|revision| {
        revision.ready = std::mem::take(&mut revision.not_ready);
    });
    assert_eq!(outcome(sent).await.0, 200);
    assert_eq!(cluster_ip.requests(), 2);
}

#[tokio::test]
async fn a_pod_that_answers_for_itself_is_no_sign_of_a_mesh() {
    for status in [404, 500] {
        let (world, cluster_ip) = (start(MeshMode::Auto).await, ProbedPod::ready().await);
        let pod = ProbedPod::start(status, "").await;
        world.set(|revision| {
            revision.ready = vec![pod.endpoint()];
            revision.cluster_ip = Some(cluster_ip.address);
        });
        let sent = world.get_queued("/").await;
        pod.probed_again().await;
        assert_eq!((world.queued(), cluster_ip.probes()), (1, 0), "{status}");
        pod.answer(200, "queue");
        assert_eq!(outcome(sent).await.0, 200);
        assert_eq!((pod.requests(), cluster_ip.requests()), (1, 0));
    }
}

#[tokio::test]
async fn a_mesh_that_is_said_to_be_there_is_believed() {
    let (world, cluster_ip) = (start(MeshMode::Enabled).await, ProbedPod::ready().await);
    let pod = ProbedPod::ready().await;
    world.set(|revision| {
        revision.ready = vec![pod.endpoint()];
        revision.cluster_ip = Some(cluster_ip.address);
    });
    assert_eq!(outcome(world.get()).await.0, 200);
    assert_eq!((pod.probes(), pod.requests(), cluster_ip.requests()), (0, 0, 1));
}

#[tokio::test]
async fn a_pod_that_lost_its_readiness_is_left_as_soon_as_it_fails() {
    let (world, pod) = (start(MeshMode::Disabled).await, ProbedPod::ready().await);
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(world.get()).await.0, 200);
    let late = ProbedPod::start(500, "").await;
    world.set(|revision| {
        revision.not_ready = vec![pod.endpoint(), late.endpoint()];
        revision.ready.clear();
    });
    pod.probed_again().await;
    assert_eq!(outcome(world.get()).await.0, 200, "it still passes");
    pod.answer(503, "");
    eventually("it is not used any more", || world.pods().is_empty()).await;
    let sent = world.get_queued("/").await;
    late.answer(200, "queue");
    assert_eq!(outcome(sent).await.0, 200);
    assert_eq!((pod.requests(), late.requests()), (2, 1));
}

#[tokio::test]
async fn activators_share_pods_by_their_addresses() {
    let (one, other) = (ProbedPod::ready().await, ProbedPod::ready().await);
    let mut revision = revision(1);
    revision.ready = vec![one.endpoint(), other.endpoint()];
    revision.activators = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().expect("an address")).into();
    let world = World::start_with(revision, |params| params.pod_ip = "10.0.0.2".parse().ok()).await;
    for _ in 0..4 {
        assert_eq!(outcome(world.get()).await.0, 200);
    }
    let mut used = [(one.address.to_string(), one.requests()), (other.address.to_string(), other.requests())];
    used.sort();
    assert_eq!(used.map(|(_, requests)| requests), [0, 4], "the second activator has the second pod");
    // Not among them any more, as when requests go straight to the pods: it keeps its place.
    world.set(|revision| revision.activators = ["10.0.0.1".parse().expect("an address")].into());
    assert_eq!(outcome(world.get()).await.0, 200);
    let first = if one.address.to_string() < other.address.to_string() { &one } else { &other };
    assert_eq!(first.requests(), 0);
}

#[tokio::test]
async fn a_deleted_revision_is_not_probed_any_more() {
    let (world, pod) = (start(MeshMode::Disabled).await, ProbedPod::start(503, "").await);
    world.set(|revision| revision.not_ready = vec![pod.endpoint()]);
    pod.probed_again().await;
    world.delete_revision();
    eventually("the revision is gone", || world.activator.activity().is_empty()).await;
    let probes = pod.probes();
    let (other_world, other) = (start(MeshMode::Disabled).await, ProbedPod::start(503, "").await);
    other_world.set(|revision| revision.not_ready = vec![other.endpoint()]);
    // Pods are probed every 5 ms, if at all.
    for _ in 0..3 {
        other.probed_again().await;
    }
    assert_eq!(pod.probes(), probes);
}

#[tokio::test]
async fn a_pod_without_a_queue_proxy_is_used_once_it_accepts_connections() {
    let world = World::start(revision(0)).await;
    let (address, listener) = listen().await;
    drop(listener);
    world.set(|revision| {
        revision.probe = PodProbe::Connect;
        revision.not_ready = vec![pod_at(address)];
    });
    let waiting = world.get_queued("/").await;
    let pod = FakePod::start_at(TcpListener::bind(address).await.unwrap());
    assert_eq!(outcome(waiting).await, (200, "pod".to_owned()));
    assert_eq!(pod.paths(), ["/"], "no probe is a request to the app");
}

#[tokio::test]
async fn a_pod_that_must_be_said_to_be_ready_is_not_asked() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start().await;
    world.set(|revision| {
        (revision.probe, revision.trust_probes) = (PodProbe::Connect, false);
        revision.not_ready = vec![pod.endpoint()];
    });
    let waiting = world.get_queued("/").await;
    world.set(|revision| revision.ready = std::mem::take(&mut revision.not_ready));
    assert_eq!(outcome(waiting).await.0, 200);
}
