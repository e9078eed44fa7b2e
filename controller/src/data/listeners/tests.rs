use std::collections::BTreeMap;

use pilotlight_activator::{ActivatorParams, PortIdentity};
use pilotlight_core::{PodEndpoint, PodTimeline, RevisionEndpoints, RevisionId};
use pilotlight_feed::Feed;
use pilotlight_net::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::data::named::NamedPorts;
use crate::data::pretend::own_address;
use crate::facts::Name;

/// Listeners with a pod that answers by its name.
struct World {
    ip: IpAddr,
    ports: Feed<u16, PortUse>,
    table: watch::Sender<String>,
    slices: mpsc::Sender<SliceNews>,
    state: watch::Receiver<PortState>,
    leave: Drain,
    running: JoinHandle<()>,
}

impl World {
    async fn start() -> World {
        let ip = own_address();
        let endpoints = Feed::default();
        for name in ["web", "api"] {
            let address = pod(name).await;
            let ports = Arc::new(BTreeMap::from([(format!("{name}/http"), address.port())]));
            let pod = PodEndpoint {
                name: name.to_owned(),
                address,
                tls_address: None,
                ports,
                timeline: PodTimeline::default(),
            };
            let told = RevisionEndpoints { ready: vec![pod], ..RevisionEndpoints::default() };
            endpoints.set(RevisionId::new("shop", name), told);
        }
        endpoints.complete();
        let clock = Clock::start();
        let params = ActivatorParams::new("a-1", clock, Target::ws("ws://127.0.0.1:1").unwrap());
        let activator = Activator::start(params, endpoints.follow());
        let (ports, table) = (Feed::default(), watch::Sender::new(String::new()));
        let (slices, heard) = mpsc::channel(8);
        let (state, seen) = watch::channel(PortState::default());
        let listeners = Listeners {
            activator,
            clock,
            listen: ip,
            max_connections: 100,
            close_limit: Duration::from_millis(50),
            ports: ports.follow(),
            table: table.subscribe(),
            slices: heard,
            state,
            metrics: Metrics::new(),
        };
        let leave = Drain::default();
        let running = tokio::spawn(listeners.run(leave.clone()));
        World { ip, ports, table, slices, state: seen, leave, running }
    }

    fn give(&self, version: &str, uses: &[(u16, &str)]) {
        for (port, workload) in uses {
            let identity = |name: &str| PortIdentity {
                revision: RevisionId::new("shop", name),
                port: format!("{name}/http"),
            };
            let identity = Some(*workload).filter(|name| !name.is_empty()).map(identity);
            self.ports.set(*port, PortUse { identity, ..PortUse::default() });
        }
        self.table.send_replace(version.to_owned());
    }

    async fn connect(&self, port: u16) -> TcpStream {
        let connected = timeout(LIMIT, TcpStream::connect((self.ip, port))).await;
        connected.expect("in time").expect("it is bound")
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&PortState) -> bool) -> PortState {
        let reached = timeout(LIMIT, self.state.wait_for(|state| is_so(state))).await;
        reached.unwrap_or_else(|_| panic!("{what}")).expect("it runs").clone()
    }
}

/// A pod that answers every connection with its name, and closes it.
async fn pod(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let read = async {
        while !answer.ends_with("web") && !answer.ends_with("api") {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).await.unwrap();
            assert!(length > 0, "closed after {answer:?}");
            answer.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
    };
    timeout(LIMIT, read).await.expect("an answer");
    answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn each_port_leads_to_its_workload_and_the_version_is_told_once_all_are_bound() {
    let mut world = World::start().await;
    world.give("7", &[(PORT, "web"), (OTHER_PORT, "api")]);
    let state = world.until("version 7 is bound", |state| state.table_version == "7").await;
    assert_eq!((state.bound, state.unbindable), (2, vec![]));
    assert_eq!(ask(&mut world.connect(PORT).await).await, "web");
    assert_eq!(ask(&mut world.connect(OTHER_PORT).await).await, "api");
}

#[tokio::test]
async fn a_connection_at_a_port_of_nobody_waits_until_it_is_somebodys() {
    let mut world = World::start().await;
    world.give("1", &[(PORT, "")]);
    world.until("it is bound", |state| state.table_version == "1").await;
    let mut early = world.connect(PORT).await;
    world.give("1", &[(PORT, "web")]);
    assert_eq!(ask(&mut early).await, "web");
}

#[tokio::test]
async fn connections_end_when_their_port_gets_another_owner() {
    let mut world = World::start().await;
    world.give("1", &[(PORT, "web")]);
    world.until("it is bound", |state| state.table_version == "1").await;
    let mut before = world.connect(PORT).await;
    assert_eq!(ask(&mut before).await, "web");
    world.give("2", &[(PORT, "api")]);
    assert!(is_closed(&mut before).await);
    world.until("it is bound again", |state| state.table_version == "2" && state.bound == 1).await;
    assert_eq!(ask(&mut world.connect(PORT).await).await, "api");
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_told_and_bound_once_it_is_free() {
    let mut world = World::start().await;
    let taken = TcpListener::bind((world.ip, PORT)).await.unwrap();
    world.give("3", &[(PORT, "web")]);
    let state = world.until("it is told", |state| !state.unbindable.is_empty()).await;
    assert_eq!((state.unbindable, state.table_version.as_str()), (vec![PORT], "3"));
    drop(taken);
    let state = world.until("it is bound", |state| state.unbindable.is_empty()).await;
    assert_eq!(state.bound, 1);
}

#[tokio::test]
async fn a_port_that_slices_name_is_missing_until_it_is_bound() {
    let mut world = World::start().await;
    let slice = NamedPorts { ports: [PORT].into(), own: Standing::Ready };
    world.slices.send((Name::new("shop", "web-1").into(), Some(slice.into()))).await.unwrap();
    let state = world.until("it is missing", |state| state.missing.0 == 1).await;
    assert_eq!((state.missing.1, state.standing), (Some(PORT), Standing::Ready));
    world.give("1", &[(PORT, "web")]);
    world.until("it is bound", |state| state.missing.0 == 0).await;
    world.slices.send((Name::new("shop", "web-1").into(), None)).await.unwrap();
    world.until("no slice names it", |state| state.standing == Standing::Absent).await;
}

#[tokio::test]
async fn at_the_end_kept_connections_are_closed_and_ports_with_them() {
    let mut world = World::start().await;
    world.give("1", &[(PORT, "web")]);
    world.until("it is bound", |state| state.table_version == "1").await;
    let mut kept = world.connect(PORT).await;
    assert_eq!(ask(&mut kept).await, "web");
    world.leave.start();
    assert!(is_closed(&mut kept).await);
    timeout(LIMIT, world.running).await.expect("in time").unwrap();
    assert!(TcpStream::connect((world.ip, PORT)).await.is_err());
}

const PORT: u16 = 10_000;
const OTHER_PORT: u16 = 10_001;
const LIMIT: Duration = Duration::from_secs(20);
