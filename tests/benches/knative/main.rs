//! What the activator of a cluster holds of its revisions: `cargo bench -p pilotlight-tests --bench knative`, half a minute.
//!
//! An API server of this process has as many revisions, each with its private Service and both Endpoints, in the size that
//! Knative gives them. `pilotlight knative activator` lists them all; measured is its resident memory, at once and after a
//! second list. The goal is checked; the exit code says whether it was met.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use pilotlight_tests::cluster::api::{ApiServer, Requests};
use pilotlight_tests::http::get;
use pilotlight_tests::{binary, eventually};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(measure())
}

async fn measure() -> ExitCode {
    let program = binary();
    let mut most = 0.0;
    for revisions in [0, 1000, REVISIONS] {
        let server = ApiServer::start().await;
        server.allow(|_, kind| kind != "endpointslices.discovery.k8s.io");
        for number in 0..revisions {
            objects(number).into_iter().for_each(|object| drop(server.add(object)));
        }
        let began = Instant::now();
        let running = Running(start(program, &server));
        let all = async || (known().await? >= revisions).then_some(());
        eventually("all revisions are known", PATIENCE, all).await;
        let (took, first) = (began.elapsed(), running.resident_mib());
        server.faults().expire_watches(Requests::all());
        let lists = server.log().count(|request| request.resource == "endpoints");
        let again = async || {
            (server.log().count(|request| request.resource == "endpoints") > lists + 1).then_some(())
        };
        eventually("it lists again", PATIENCE, again).await;
        let second = running.resident_mib();
        println!(
            "{revisions} revisions: {first:.1} MiB when all were known, after {took:.1?}; {second:.1} MiB after a second list"
        );
        most = f64::max(first, second);
    }
    println!("goal: at most {GOAL_MIB} MiB with {REVISIONS} revisions");
    if most <= GOAL_MIB { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Running(Child);

impl Running {
    fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).expect("a number");
        kib / 1024.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Err: it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &std::path::Path, server: &ApiServer) -> Child {
    Command::new(program)
        .args([
            "knative",
            "activator",
            "--autoscaler",
            "ws://127.0.0.1:9",
            "--log-level",
            "error",
            "--bind-address",
            IP,
        ])
        .arg("--kubeconfig")
        .arg(server.kubeconfig())
        .env("SYSTEM_NAMESPACE", "knative-serving")
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// Revisions that the activator knows; `None` while it does not answer.
async fn known() -> Option<usize> {
    let admin: SocketAddr = format!("{IP}:8008").parse().expect("an address");
    let answer = get(admin, "a", "/v1/activity").await.ok()?;
    serde_json::from_str::<Value>(&answer.body).ok()?.as_object().map(serde_json::Map::len)
}

/// A revision with five pods, of which it may use all, and what leads to them.
fn objects(number: usize) -> [Value; 4] {
    let name = format!("service-with-a-usual-name-{number:05}");
    let labels = json!({
        "serving.knative.dev/configuration": "service-with-a-usual-name", "serving.knative.dev/revision": name,
        "serving.knative.dev/configurationGeneration": "1", "serving.knative.dev/service": "service-with-a-usual-name",
        "serving.knative.dev/configurationUID": UID, "serving.knative.dev/serviceUID": UID, "app": name});
    let metadata = |name: String, side: &str| {
        let mut labels = labels.clone();
        labels["networking.internal.knative.dev/serviceType"] = json!(side);
        json!({"name": name, "namespace": "default", "labels": labels,
            "annotations": {"autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev", "serving.knative.dev/creator": "somebody"}})
    };
    let address = |pod: usize| {
        let ip = format!("10.{}.{}.{pod}", number / 250, number % 250);
        json!({"ip": ip, "nodeName": "node-1", "targetRef": {"kind": "Pod", "namespace": "default",
            "name": format!("{name}-deployment-5c9d7b6f4d-{pod:05}"), "uid": UID}})
    };
    let pods: Vec<Value> = (1..=5).map(address).collect();
    let ports = json!([{"name": "http", "port": 8012}, {"name": "https", "port": 8112}, {"name": "http-autometric", "port": 9090}]);
    let private = format!("{name}-private");
    [
        json!({"apiVersion": "serving.knative.dev/v1", "kind": "Revision", "metadata": metadata(name.clone(), "none"),
            "spec": {"containerConcurrency": 10, "timeoutSeconds": 300, "containers": [{"name": "user-container",
                "image": "registry.example/app:1", "env": [{"name": "A", "value": "b"}],
                "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}}}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(private.clone(), "Private"),
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]}}),
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata(private, "Private"),
            "subsets": [{"addresses": pods, "ports": ports}]}),
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata(name.clone(), "Public"),
            "subsets": [{"addresses": [address(6), address(7)], "ports": ports}]}),
    ]
}

const REVISIONS: usize = 5000;
const GOAL_MIB: f64 = 150.0;
const PATIENCE: Duration = Duration::from_secs(120);
/// An address of this bench alone: the ports are Knative's.
const IP: &str = "127.83.1.1";
const UID: &str = "0b3e2f0e-6c1f-4d1a-9c39-2f5d3f0f7c55";
