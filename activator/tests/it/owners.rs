//! Two activators and pods with a limit: each pod belongs to one of the two, and the other hands requests on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Request as HttpRequest;
use pilotlight_activator::{PortProtocol, PortSettings};
use pilotlight_core::balance::pod_owner;
use pilotlight_core::{PodEndpoint, PodSharing, RevisionEndpoints};
use pilotlight_net::Body;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::harness::*;
use crate::ports::read_until;
use crate::tcp::speaking;

/// The address that whatever connects on this machine comes from, so that the activator there is the one that hands on.
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

fn owned(container_concurrency: u32, activators: &[IpAddr]) -> RevisionEndpoints {
    RevisionEndpoints {
        sharing: PodSharing::Owned,
        activators: activators.iter().copied().collect(),
        ..revision(container_concurrency)
    }
}

async fn activator(own: IpAddr, revision: RevisionEndpoints) -> World {
    World::start_with(revision, |params| params.pod_ip = Some(own)).await
}

/// Two activators with the same revision, and a port of the same number at each.
async fn two(container_concurrency: u32, settings: PortSettings) -> ([World; 2], [OpenPort; 2]) {
    let revision = owned(container_concurrency, &[HERE, THERE]);
    let worlds = [activator(HERE, revision.clone()).await, activator(THERE, revision).await];
    loop {
        let here = TcpListener::bind((HERE, 0)).await.unwrap();
        let number = here.local_addr().unwrap().port();
        // Taken by somebody else on this machine, perhaps.
        let Ok(there) = TcpListener::bind((THERE, number)).await else { continue };
        let ports = [worlds[0].open_port_at(here, settings.clone()), worlds[1].open_port_at(there, settings)];
        return (worlds, ports);
    }
}

fn endpoint(address: SocketAddr) -> PodEndpoint {
    PodEndpoint { ports: Arc::new([(PORT.to_owned(), address.port())].into()), ..pod_at(address) }
}

/// A listener whose address makes a pod there belong to `owner`.
async fn listener_of(owner: IpAddr) -> TcpListener {
    loop {
        let (address, listener) = listen().await;
        if pod_owner(address, &[HERE, THERE].into()) == Some(owner) {
            return listener;
        }
    }
}

fn requests(world: &World) -> u64 {
    world.activator.ledger().total.requests
}

#[tokio::test]
async fn a_request_is_handed_on_to_the_owner_and_is_still_one_request() {
    let ([here, there], [port, _there_port]) = two(1, PortSettings::default()).await;
    let waiting = port.send(HttpRequest::post("/").header("host", "web").body(Body::full("body")).unwrap());
    eventually("it waits here", || here.queued() == 1).await;
    let pod = FakePod::start_at(listener_of(THERE).await);
    for world in [&there, &here] {
        world.set(|revision| revision.ready = vec![endpoint(pod.address)]);
    }
    let response = soon(waiting).await.unwrap();
    assert_eq!(response.headers().get_all("server-timing").iter().count(), 1, "one cold start");
    assert_eq!((code(&response), pod.bodies()), (200, vec!["body".to_owned()]));
    assert_eq!((pod.header("host"), pod.header("x-forwarded-for")), ("web".into(), "127.0.0.1".into()));
    assert_eq!(pod.header("pilotlight-handed-on"), "");
    assert_eq!((requests(&here), requests(&there)), (1, 0));
    drop(response);
    eventually("all is over", || here.active() == 0 && there.active() == 0).await;
}

#[tokio::test]
async fn a_pod_has_no_more_requests_than_its_limit_whichever_activator_they_came_to() {
    let ([here, there], ports) = two(2, PortSettings::default()).await;
    let pod = FakePod::blocked_at(listener_of(THERE).await);
    for world in [&there, &here] {
        world.set(|revision| revision.ready = vec![endpoint(pod.address)]);
    }
    let sent: Vec<_> = (0..10).map(|i| ports[i % 2].send(get("/"))).collect();
    eventually("the pod has its most", || pod.paths().len() == 2).await;
    pod.may_answer.add_permits(10);
    for response in sent {
        assert_eq!(outcome(response).await, (200, "pod".to_owned()));
    }
    assert_eq!(pod.most_at_once(), 2);
    assert_eq!((requests(&here), requests(&there)), (5, 5));
}

#[tokio::test]
async fn http_2_and_health_checks_are_handed_on_as_well() {
    let ([here, there], [port, _there_port]) = two(1, PortSettings::default()).await;
    let pod = FakePod::start_at(listener_of(THERE).await);
    for world in [&there, &here] {
        world.set(|revision| revision.ready = vec![endpoint(pod.address)]);
    }
    let h2 = HttpRequest::get("/").version(http::Version::HTTP_2).header("host", "web");
    assert_eq!(outcome(port.send(h2.body(Body::empty()).unwrap())).await.0, 200);
    let check = HttpRequest::get("/").header("host", "web").header("user-agent", "kube-probe/1.36");
    assert_eq!(outcome(port.send(check.body(Body::empty()).unwrap())).await, (200, "pod".to_owned()));
    assert_eq!(pod.versions(), [http::Version::HTTP_2, http::Version::HTTP_11]);
    assert_eq!((requests(&here), requests(&there)), (1, 0));
}

#[tokio::test]
async fn a_request_whose_owner_is_another_by_now_keeps_its_place() {
    let ([here, there], [port, _there_port]) = two(1, PortSettings::default()).await;
    let pod = FakePod::start_at(listener_of(THERE).await);
    // The other one has heard that it is to leave, and this one has not.
    there.set(|revision| {
        revision.activators = [HERE].into();
        revision.ready = vec![endpoint(pod.address)];
    });
    here.set(|revision| revision.ready = vec![endpoint(pod.address)]);
    let waiting = port.send(post("/", "body"));
    let came_back = || {
        let error = here.activator.activity()[&hello()].last_error.clone();
        error.is_some_and(|error| error.contains("belong to another activator"))
    };
    eventually("it came back", came_back).await;
    assert!(pod.paths().is_empty());
    here.set(|revision| revision.activators = [HERE].into());
    assert_eq!(outcome(waiting).await, (200, "pod".to_owned()));
    assert_eq!(pod.bodies(), ["body"]);
    assert_eq!(requests(&here), 1);
}

#[tokio::test]
async fn who_is_no_activator_cannot_pass_for_one() {
    let others = [THERE, IpAddr::from([127, 0, 0, 3])];
    let world = activator(THERE, owned(1, &others)).await;
    let listener = loop {
        let (address, listener) = listen().await;
        if pod_owner(address, &others.into()) == Some(THERE) {
            break listener;
        }
    };
    let pod = FakePod::start_at(listener);
    world.set(|revision| revision.ready = vec![endpoint(pod.address)]);
    let port = world.open_port(PortSettings::default()).await;
    let forged = HttpRequest::get("/").header("host", "web").header("pilotlight-handed-on", "1");
    assert_eq!(outcome(port.send(forged.body(Body::empty()).unwrap())).await.0, 200);
    assert_eq!(requests(&world), 1, "it is counted as any other");
    assert_eq!(pod.header("pilotlight-handed-on"), "");
    assert_eq!(pod.header("x-forwarded-for"), "127.0.0.1");
}

#[tokio::test]
async fn while_nobody_knows_the_activators_requests_wait() {
    let world = activator(HERE, owned(1, &[])).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![endpoint(pod.address)]);
    let port = world.open_port(PortSettings::default()).await;
    let waiting = port.send(get("/"));
    eventually("it waits", || world.queued() == 1).await;
    world.set(|revision| revision.activators = [HERE].into());
    assert_eq!(outcome(waiting).await.0, 200);
}

#[tokio::test]
async fn a_connection_that_is_not_http_is_handed_on_as_well() {
    let ([here, there], [port, _there_port]) = two(1, speaking(PortProtocol::Detect)).await;
    let listener = listener_of(THERE).await;
    let address = listener.local_addr().unwrap();
    for world in [&there, &here] {
        world.set(|revision| revision.ready = vec![endpoint(address)]);
    }
    let mut client = port.connect().await;
    client.write_all(b"\0hello!").await.unwrap();
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    read_until(&mut pod, "hello!").await;
    pod.write_all(b"there!").await.unwrap();
    read_until(&mut client, "there!").await;
    assert_eq!((here.active(), there.active()), (1, 1));
    assert_eq!((requests(&here), requests(&there)), (1, 0));
    drop((client, pod));
    eventually("all is over", || here.active() == 0 && there.active() == 0).await;
}
