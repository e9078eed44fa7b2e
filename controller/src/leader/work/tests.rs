//! A worker at an API server in the test: what it writes, and in which order.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use pilotlight_core::{ActivatorPath, Activity, Outcome, Plan, PodCounts, ServingMode, Trigger};
use pilotlight_kubernetes::pretend::{Asked, PretendApi};
use pilotlight_net::{Admin, Body, Drain, Response, listen, serve};
use serde_json::{Value, json};

use super::*;
use crate::leader::plain::{PlainCluster, PlainClusterParams};
use crate::leader::roll::PeerState;
use crate::peers::{ActivatorStatus, STATUS_PATH};

pub(crate) const AUTOSCALER: &str = "/apis/pilotlight.dev/v1alpha1/namespaces/shop/requestautoscalers/web";
pub(crate) const TARGET: &str = "/apis/apps/v1/namespaces/shop/deployments/web";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
const TABLE: &str = "/api/v1/namespaces/pilotlight-system/configmaps/pilotlight-ports";

/// A cluster of one workload without a selector, and one activator that binds whatever the table says.
pub(crate) struct World {
    pub(crate) api: PretendApi,
    cluster: Arc<PlainCluster>,
    activator_port: u16,
}

impl World {
    pub(crate) async fn with(replicas: u32, spec: &Value) -> World {
        let world = World::without_activator(replicas, spec).await;
        world.api.put(
            "/api/v1/namespaces/pilotlight-system/pods/activator",
            json!({"metadata": {"namespace": "pilotlight-system", "uid": "activator"}, "spec": {"containers": []},
                "status": {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        world.until("activator", |_| world.serving() == 1).await;
        world
    }

    async fn without_activator(replicas: u32, spec: &Value) -> World {
        let (api, client) = PretendApi::start();
        api.put(AUTOSCALER, autoscaler(spec));
        api.put(
            "/api/v1/namespaces/shop/services/web",
            json!({"metadata": {"namespace": "shop", "uid": "service", "annotations": {"pilotlight.dev/selector": "app=web"}},
                "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
                    "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        );
        api.put(
            TARGET,
            json!({"metadata": {"namespace": "shop", "uid": "target"}, "spec": {"replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}}),
        );
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let activator_port = listener.local_addr().unwrap().port();
        let table = api.clone();
        let status = Admin::new().route(STATUS_PATH, move |_| {
            let version = table.get(TABLE).map(|it| it["metadata"]["resourceVersion"].clone());
            let status = ActivatorStatus {
                table_version: version.and_then(|it| Some(it.as_str()?.to_owned())).unwrap_or_default(),
                is_complete: true,
                ..ActivatorStatus::default()
            };
            std::future::ready(Response::new(Body::full(serde_json::to_vec(&status).unwrap())))
        });
        tokio::spawn(serve(listener, Arc::new(status), Drain::default()));
        World::at(api, client, activator_port)
    }

    fn at(api: PretendApi, client: Client, activator_port: u16) -> World {
        let cluster = PlainCluster::start(PlainClusterParams {
            client,
            clock: Clock::start(),
            system_namespace: "pilotlight-system".to_owned(),
            namespaces: Vec::new(),
            activator_admin_port: activator_port,
            propagation: Duration::from_millis(50),
            sets_deletion_cost: false,
            metrics: Metrics::new(),
        });
        World { api, cluster, activator_port }
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.cluster.worker
    }

    fn serving(&self) -> usize {
        let peers = self.worker().roll.lock().peers(self.worker().clock.now());
        peers.values().filter(|peer| matches!(peer.state, PeerState::Serving { .. })).count()
    }

    pub(crate) async fn until_shown(&self) {
        self.until("shown", |_| self.worker().workloads.lock().shown_count() == 1).await;
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&PretendApi) -> bool) {
        let wait = async {
            while !is_so(&self.api) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
            panic!("never: {what}; writes: {:#?}; {:#?}", self.api.writes(), self.api.get(AUTOSCALER));
        }
    }

    pub(crate) fn decide(&self, evaluation: &Evaluation) {
        self.worker().apply(&id(), evaluation);
    }

    /// Everything that was decided is written.
    pub(crate) async fn until_settled(&self) {
        let settled = |api: &PretendApi| {
            let conditions = api.get(AUTOSCALER).unwrap()["status"]["conditions"].to_string();
            conditions.contains("All requests pass the activators")
        };
        self.until("settled", settled).await;
        self.worker().idle().await;
    }

    /// A pod of the target is ready.
    pub(crate) fn ready_pod(&self) {
        self.api.put(
            "/api/v1/namespaces/shop/pods/web-1",
            json!({"metadata": {"namespace": "shop", "uid": "web-1", "labels": {"app": "web"}}, "spec": {"containers": []},
                "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]}}),
        );
    }

    fn replicas(&self) -> Value {
        self.api.get(TARGET).unwrap()["spec"]["replicas"].clone()
    }
}

fn id() -> RevisionId {
    RevisionId::new("shop", "web")
}

fn autoscaler(spec: &Value) -> Value {
    let mut all =
        json!({"scaleTargetRef": {"name": "web"}, "minReplicas": 0, "maxReplicas": 5, "window": "6s"});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"apiVersion": "pilotlight.dev/v1alpha1", "kind": "RequestAutoscaler",
        "metadata": {"namespace": "shop", "uid": "autoscaler", "generation": 1}, "spec": all})
}

/// An evaluation that wants so many pods.
pub(crate) fn wants(pods: u32) -> Evaluation {
    let at = Time::from_secs(1_000);
    let activity = match pods {
        0 => Activity::Inactive { since: at, timed_out: false },
        _ => Activity::Activating { since: at },
    };
    Evaluation {
        at,
        trigger: Trigger::Tick,
        pods: PodCounts::default(),
        path: ActivatorPath::default(),
        decided: false,
        decision: None,
        outcome: Outcome { want: Some(pods), apply: Some(pods), bound: None, wake_at: None },
        activity,
        initialized: true,
        plan: Plan {
            scale: Some(pods),
            mode: ServingMode::Proxy,
            activators: 2,
            probe_path: false,
            wake_at: None,
        },
    }
}

fn our_slice(api: &PretendApi) -> Option<EndpointSlice> {
    let created = api.writes().into_iter().filter(|asked| asked.target() == format!("POST {SLICES}"));
    let name = |asked: &Asked| Some(asked.json()["metadata"]["name"].as_str()?.to_owned());
    let mut slices = created.filter_map(|asked| api.get(&format!("{SLICES}/{}", name(&asked)?)));
    slices.next().map(|object| serde_json::from_value(object).unwrap())
}

#[tokio::test]
async fn a_new_workload_gets_its_selector_its_ports_and_its_slice() {
    let world = World::with(1, &json!({})).await;
    world.until("selector", |api| api.get(AUTOSCALER).unwrap()["status"]["selector"] == "app=web").await;
    world.until_shown().await;
    assert!(our_slice(&world.api).is_none(), "nothing was decided yet");
    world.decide(&wants(1));
    world.until("slice", |api| our_slice(api).is_some()).await;
    let slice = our_slice(&world.api).unwrap();
    let port = slice.ports.unwrap()[0].port.unwrap();
    assert!(world.api.get(TABLE).unwrap()["data"].to_string().contains(&port.to_string()));
    let told = |api: &PretendApi| {
        let status = api.get(AUTOSCALER).unwrap()["status"].clone();
        status["ports"]["web/http"] == port && status["path"] == "Activator"
    };
    world.until("condition", told).await;
}

#[tokio::test]
async fn a_wake_is_patched_at_once_and_told() {
    let world = World::with(0, &json!({})).await;
    world.until_shown().await;
    world.decide(&wants(2));
    world.until("wake", |api| api.get(TARGET).unwrap()["spec"]["replicas"] == 2).await;
    let told = |api: &PretendApi| {
        let last = api.get(AUTOSCALER).unwrap()["status"]["lastDecision"].clone();
        (last["from"].clone(), last["to"].clone()) == (json!(0), json!(2))
    };
    world.until("decision", told).await;
}

#[tokio::test]
async fn without_an_activator_a_sleeping_target_is_woken() {
    let world = World::without_activator(0, &json!({})).await;
    world.until("wake", |api| api.get(TARGET).unwrap()["spec"]["replicas"] == 1).await;
}

#[tokio::test]
async fn observing_and_pausing_change_no_number() {
    for mode in ["Observe", "Paused"] {
        let world = World::with(0, &json!({"mode": mode})).await;
        world.until_shown().await;
        world.decide(&wants(2));
        world.until("status", |api| api.get(AUTOSCALER).unwrap()["status"]["wantedReplicas"] == 2).await;
        world.worker().idle().await;
        assert_eq!(world.replicas(), 0, "{mode}");
    }
}

#[tokio::test]
async fn a_restart_writes_nothing() {
    let world = World::with(1, &json!({})).await;
    world.until_shown().await;
    world.decide(&wants(1));
    world.until_settled().await;
    let World { api, cluster, activator_port } = world;
    drop(cluster);
    let before = api.writes().len();
    let client = api.client();
    let world = World::at(api, client, activator_port);
    world.until_shown().await;
    world.until("activator", |_| world.serving() == 1).await;
    world.decide(&wants(1));
    world.worker().idle().await;
    assert_eq!(world.api.writes().len(), before, "{:#?}", world.api.get(AUTOSCALER));
}
