use pilotlight_activator::ActivatorParams;
use pilotlight_net::{Clock, Target};
use pilotlight_telemetry::Registry;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::data::named::Standing;
use crate::data::pretend::own_address;
use pilotlight_kubernetes::pretend::{Asked, Failure, PretendApi};

/// A cluster with one workload, `web`, and its activator.
struct World {
    api: PretendApi,
    ip: IpAddr,
    activator: RunningActivator,
}

impl World {
    async fn start() -> World {
        let (api, client) = PretendApi::start();
        let ip = own_address();
        let nobody = Target::ws("ws://127.0.0.1:1").unwrap();
        let activator = start(DataParams {
            client,
            scope: Scope::of(["shop".to_owned()]),
            system_namespace: "system".to_owned(),
            pod_ip: ip,
            listen: ip,
            admin: SocketAddr::new(ip, 9090),
            stats_port: STATS_PORT,
            max_connections: 100,
            leaving: LeaveTimes { propagation: Duration::from_millis(10), ..LeaveTimes::default() },
            page: MetricsPage::new(Registry::new(), &[]),
            activator: ActivatorParams::new("a-1", Clock::start(), nobody),
        })
        .unwrap();
        api.put(
            "/apis/pilotlight.dev/v1alpha1/namespaces/shop/requestautoscalers/web",
            json!({"apiVersion": "pilotlight.dev/v1alpha1", "kind": "RequestAutoscaler",
                "metadata": {"namespace": "shop"},
                "spec": {"scaleTargetRef": {"name": "web"}, "minReplicas": 0}, "status": {"selector": "app=web"}}),
        );
        api.put(
            "/api/v1/namespaces/shop/services/web",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop"},
                "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"},
                    "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        );
        api.put(
            "/api/v1/namespaces/system/configmaps/pilotlight-ports",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "system"},
                "data": {"shop": format!("web/http {PORT}\n")}}),
        );
        World { api, ip, activator }
    }

    /// A ready pod that answers at an address of its own.
    async fn add_pod(&self) {
        let ip = own_address();
        let listener = TcpListener::bind((ip, 8080)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nweb";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let ready = json!([{"type": "Ready", "status": "True"}]);
        self.api.put(
            "/api/v1/namespaces/shop/pods/web-1",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "labels": {"app": "web"}},
                "spec": {"containers": [{"name": "app"}]},
                "status": {"phase": "Running", "podIP": ip.to_string(), "conditions": ready}}),
        );
    }

    /// A slice that leads to this activator.
    fn put_slice(&self, port: u16) {
        let endpoint = json!({"addresses": [self.ip.to_string()], "conditions": {"ready": true}});
        self.api.put(
            "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web-1",
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"namespace": "shop", "labels": {"endpointslice.kubernetes.io/managed-by": "pilotlight.dev"},
                    "ownerReferences": [{"apiVersion": "x", "kind": "RequestAutoscaler", "name": "web", "uid": "u"}]},
                "addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": [endpoint]}),
        );
    }

    fn lead(&self, ip: IpAddr) {
        self.api.put(
            "/apis/coordination.k8s.io/v1/namespaces/system/leases/pilotlight",
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"namespace": "system"},
                "spec": {"holderIdentity": format!("pilotlight-1_{ip}")}}),
        );
    }

    async fn is_bound(&self) {
        eventually("the port is bound", || !self.activator.status().table_version.is_empty()).await;
    }

    fn ask(&self) -> JoinHandle<String> {
        tokio::spawn(ask(SocketAddr::new(self.ip, PORT), "/"))
    }
}

async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it is bound");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let reached = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, reached).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn answer(asked: JoinHandle<String>) -> String {
    timeout(LIMIT, asked).await.expect("in time").unwrap()
}

#[tokio::test]
async fn requests_reach_the_pods_of_the_ports_workload_with_or_without_an_api_server() {
    let world = World::start().await;
    world.is_bound().await;
    let waiting = world.ask();
    eventually("it waits", || world.activator.status().workloads.values().any(|busy| busy.waiting == 1))
        .await;
    let told = ask(world.activator.admin(), "/v1/activator").await;
    assert!(told.contains(r#""workloads":{"shop/web":{"waiting":1,"pods":{}}}"#), "{told}");
    world.add_pod().await;
    assert!(answer(waiting).await.ends_with("\r\n\r\nweb"));
    world.api.fail(|_| Some(Failure::Status(503)));
    assert!(answer(world.ask()).await.ends_with("\r\n\r\nweb"));
}

#[tokio::test]
async fn readiness_waits_for_every_object_and_for_the_ports_that_slices_name() {
    let world = World::start().await;
    assert_eq!(world.activator.check(), Err("not every object has been listed yet".to_owned()));
    eventually("all is listed", || world.activator.check().is_ok()).await;
    let table = "/api/v1/namespaces/system/configmaps/pilotlight-ports";
    let follows = |data: Value| {
        world.api.put(
            table,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "system"}, "data": data}),
        );
        let written = world.api.get(table).unwrap();
        let version = written["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let status = || world.activator.status();
        async move { eventually("the table is followed", || status().table_version == version).await }
    };
    let ready = || ask(world.activator.admin(), "/readyz");
    follows(json!({})).await;
    assert!(TcpStream::connect((world.ip, PORT)).await.is_ok(), "clients may still know it");
    world.put_slice(PORT);
    eventually("it is named", || world.activator.ports.borrow().standing == Standing::Ready).await;
    assert!(ready().await.starts_with("HTTP/1.1 200"));

    let taken = TcpListener::bind((world.ip, PORT + 1)).await.unwrap();
    world.put_slice(PORT + 1);
    eventually("a port is missing", || world.activator.check().is_err()).await;
    assert!(ready().await.starts_with("HTTP/1.1 503"));
    drop(taken);
    follows(json!({"shop": format!("web/http {}\n", PORT + 1)})).await;
    assert!(ready().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_workload_that_nobody_wakes_is_woken_here() {
    let world = World::start().await;
    let scale = "/apis/apps/v1/namespaces/shop/deployments/web/scale";
    world.api.raw(
        scale,
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"namespace": "shop", "name": "web", "resourceVersion": "7"}, "spec": {"replicas": 0}}),
    );
    world.is_bound().await;
    let waiting = world.ask();
    eventually("it is woken", || {
        let writes = world.api.writes();
        writes.iter().map(Asked::target).eq([format!("PATCH {scale}")])
    })
    .await;
    world.add_pod().await;
    assert!(answer(waiting).await.ends_with("\r\n\r\nweb"));
}

#[tokio::test]
async fn whoever_holds_the_lease_is_told_of_the_requests_at_once() {
    let world = World::start().await;
    let leaders = [own_address(), own_address()];
    let [one, other] = leaders.map(|ip| std::net::TcpListener::bind((ip, STATS_PORT)).unwrap());
    let listener = |listener: std::net::TcpListener| {
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    };
    world.lead(leaders[0]);
    let (mut first, _) = timeout(LIMIT, listener(one).accept()).await.unwrap().unwrap();
    world.lead(leaders[1]);
    timeout(LIMIT, listener(other).accept()).await.unwrap().unwrap();
    let mut rest = Vec::new();
    timeout(LIMIT, first.read_to_end(&mut rest))
        .await
        .expect("the former leader's connection is closed")
        .unwrap();
}

#[tokio::test]
async fn an_activator_that_is_told_to_stop_serves_until_no_slice_names_it() {
    let world = World::start().await;
    world.add_pod().await;
    world.put_slice(PORT);
    world.is_bound().await;
    let World { api, ip, activator } = world;
    let mut ports = activator.ports.clone();
    ports.wait_for(|ports| ports.standing == Standing::Ready).await.unwrap();
    let admin = activator.admin();
    let stopping = tokio::spawn(activator.stop());
    let is_told = async {
        while !ask(admin, "/v1/activator").await.contains(r#""isLeaving":true"#) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, is_told).await.expect("it is told");
    assert!(ask(SocketAddr::new(ip, PORT), "/").await.ends_with("\r\n\r\nweb"), "it serves on");
    assert!(!stopping.is_finished());
    api.delete("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web-1");
    timeout(LIMIT, stopping).await.expect("it ends").unwrap();
    assert!(TcpStream::connect((ip, PORT)).await.is_err());
}

const PORT: u16 = 10_007;
const STATS_PORT: u16 = 8080;
const LIMIT: Duration = Duration::from_secs(20);
