use std::collections::BTreeSet;

use futures_util::future::BoxFuture;
use http::Method;
use pilotlight_core::{Activity, RevisionSpec};
use pilotlight_kubernetes::pretend::{Asked, Failure, PretendApi};
use serde_json::{Value, json};

use super::super::buckets::Buckets;
use super::super::cluster::{KnativeCluster, KnativeClusterParams};
use super::super::facts;
use super::super::pretend::{NOW, evaluation, with_activity};
use super::super::settings::Settings;
use super::super::targets::{self, READ_INTERVAL, TargetId, TargetKind};
use super::*;

const AUTOSCALERS: &str = "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/ns/podautoscalers";
const METRICS: &str = "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/ns/metrics";
const SERVICES: &str = "/apis/networking.internal.knative.dev/v1alpha1/namespaces/ns/serverlessservices";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/ns/deployments";

/// A worker in front of an API server, with revisions that have been at rest for a while.
struct Place {
    api: PretendApi,
    worker: Arc<Worker>,
}

fn holding(held: &[&str]) -> Arc<Buckets> {
    let held: BTreeSet<String> = held.iter().map(|&name| name.to_owned()).collect();
    Arc::new(Buckets { all: vec!["b".to_owned()].into(), held })
}

fn id(name: &str) -> Arc<RevisionId> {
    Arc::new(RevisionId::new("ns", name))
}

fn resolve_nothing() -> Resolve {
    Arc::new(|_, _| -> BoxFuture<'static, _> { Box::pin(std::future::pending()) })
}

/// The objects of a revision at rest, in their places.
fn put_revision(api: &PretendApi, name: &str) {
    let owner = json!([{"apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler",
        "name": name, "uid": name, "controller": true}]);
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("{name}-deployment")});
    let meta = |owner: Value| {
        json!({"namespace": "ns", "name": name, "uid": name, "generation": 1,
        "labels": {"serving.knative.dev/revision": name}, "ownerReferences": owner})
    };
    let begun = "2023-11-14T22:00:00Z";
    let is =
        |type_: &str, status: &str| json!({"type": type_, "status": status, "lastTransitionTime": begun});
    let no_traffic = |type_: &str| {
        json!({"type": type_, "status": "False", "reason": "NoTraffic",
        "message": "The target is not receiving traffic.", "lastTransitionTime": begun})
    };
    api.put(
        &format!("{AUTOSCALERS}/{name}"),
        json!({
            "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler",
            "metadata": meta(json!([])),
            "spec": {"scaleTargetRef": target, "reachability": "Reachable", "protocolType": "http1"},
            "status": {"observedGeneration": 1, "serviceName": name,
                "metricsServiceName": format!("{name}-private"), "desiredScale": 0, "actualScale": 0,
                "conditions": [no_traffic("Active"), no_traffic("Ready"), is("SKSReady", "True"),
                    is("ScaleTargetInitialized", "True")]},
        }),
    );
    api.put(
        &format!("{SERVICES}/{name}"),
        json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ServerlessService",
            "metadata": meta(owner.clone()),
            "spec": {"mode": "Proxy", "objectRef": target, "protocolType": "http1", "numActivators": 3},
            "status": {"observedGeneration": 1, "serviceName": name,
                "privateServiceName": format!("{name}-private"),
                "conditions": [is("Ready", "True"), is("ActivatorEndpointsPopulated", "True")]},
        }),
    );
    api.put(
        &format!("{METRICS}/{name}"),
        json!({
            "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "Metric",
            "metadata": meta(owner),
            "spec": {"stableWindow": 60_000_000_000_i64, "panicWindow": 6_000_000_000_i64,
                "scrapeTarget": format!("{name}-private")},
            "status": {"observedGeneration": 1, "conditions": [is("Ready", "True")]},
        }),
    );
    api.put(
        &format!("{DEPLOYMENTS}/{name}-deployment"),
        json!({"metadata": {"namespace": "ns", "name": format!("{name}-deployment")},
            "spec": {"replicas": 0, "selector": {}, "template": {}}}),
    );
}

impl Place {
    /// Every revision is known as it is at the API server.
    fn new(names: &[&str]) -> Place {
        let api = PretendApi::default();
        names.iter().for_each(|name| put_revision(&api, name));
        let place = Place { worker: worker(&api), api };
        names.iter().for_each(|name| place.watch(name));
        place.worker.complete();
        names.iter().for_each(|name| place.worker.look_again(&id(name)));
        place
    }

    /// The watches show what there is of a revision.
    fn watch(&self, name: &str) {
        fn read<O: serde::de::DeserializeOwned, K, V>(
            object: Option<Value>,
            read: impl Fn(&O) -> Option<(K, V)>,
        ) -> Option<Arc<V>> {
            let object = serde_json::from_value(object?).unwrap();
            Some(Arc::new(read(&object)?.1))
        }
        let at = |kind: &str, name: &str| self.api.get(&format!("{kind}/{name}"));
        let deployment = format!("{name}-deployment");
        let facts = [
            Fact::Target(
                Arc::new(TargetId { kind: TargetKind::Deployment, name: (*id(&deployment)).clone() }),
                read(at(DEPLOYMENTS, &deployment), targets::deployment),
            ),
            Fact::Service(id(name), read(at(SERVICES, name), facts::service)),
            Fact::Metric(id(name), read(at(METRICS, name), facts::metric)),
            Fact::Autoscaler(id(name), read(at(AUTOSCALERS, name), facts::autoscaler)),
        ];
        for fact in facts {
            self.worker.learn(fact);
        }
    }

    fn replicas(&self, name: &str) -> Value {
        self.api.get(&format!("{DEPLOYMENTS}/{name}-deployment")).unwrap()["spec"]["replicas"].clone()
    }

    /// Waits until nothing is at work any more.
    async fn settled(&self) -> Vec<Asked> {
        // Each may have the other do something more, once.
        for _ in 0..2 {
            self.worker.scales.idle().await;
            self.worker.writes.idle().await;
        }
        self.api.writes()
    }
}

fn worker(api: &PretendApi) -> Arc<Worker> {
    let clock = Clock::start();
    let recorder = Recorder::start(api.client(), "autoscaler", clock);
    let params = WorkerParams {
        client: api.client(),
        clock,
        cluster_domain: "cluster.local".to_owned(),
        resolve: resolve_nothing(),
        recorder,
        metrics: Metrics::new(),
    };
    Worker::new(params, Index::new(Arc::default(), holding(&["b"])))
}

/// So many pods are wanted, and none is ready yet.
fn waking(pods: u32) -> Evaluation {
    let mut waking =
        with_activity(evaluation(&RevisionSpec::default(), pods), Activity::Activating { since: NOW });
    waking.pods.ready = 0;
    // For a burst of 211, at 100 each.
    waking.plan.activators = 3;
    waking
}

fn lines(writes: &[Asked]) -> Vec<String> {
    writes.iter().map(Asked::line).filter(|line| line != "create events").collect()
}

#[tokio::test(start_paused = true)]
async fn a_wake_is_one_patch_and_the_rest_follows() {
    let place = Place::new(&["hello-1"]);
    assert_eq!(place.settled().await.len(), 0, "at rest there is nothing to write");
    place.worker.apply(&id("hello-1"), &waking(2));
    let writes = place.settled().await;
    assert_eq!(lines(&writes), ["change scale of deployments", "change status of podautoscalers"]);
    let scale = &writes[0];
    assert_eq!(
        (&scale.method, scale.path.as_str(), scale.content_type.as_str(), scale.body.as_str()),
        (
            &Method::PATCH,
            "/apis/apps/v1/namespaces/ns/deployments/hello-1-deployment/scale",
            "application/json-patch+json",
            r#"[{"op":"add","path":"/spec/replicas","value":2}]"#
        )
    );
    let status = place.api.get(&format!("{AUTOSCALERS}/hello-1")).unwrap()["status"].clone();
    assert_eq!((&status["desiredScale"], &status["conditions"][0]["reason"]), (&json!(2), &json!("Queued")));

    // Neither the same again nor what the watches then show calls for anything.
    place.worker.apply(&id("hello-1"), &waking(2));
    place.watch("hello-1");
    assert_eq!(lines(&place.settled().await).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_wakes_wait_for_no_other_write() {
    let names: Vec<String> = (0..140).map(|number| format!("r{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let place = Place::new(&names);
    place.settled().await;
    place.api.fail(|_| Some(Failure::Silence));
    // Forty that write only a status are in the way.
    for name in &names[100..] {
        let mut other = waking(1);
        other.plan.scale = None;
        place.worker.apply(&id(name), &other);
    }
    place.api.until(|writes| writes.len() == AT_WORK).await;
    for name in &names[..100] {
        place.worker.apply(&id(name), &waking(1));
    }
    let writes = place.api.until(|writes| writes.len() >= AT_WORK + 100).await;
    let scaled: BTreeSet<&str> =
        writes[AT_WORK..].iter().filter(|write| write.path.ends_with("/scale")).map(|it| &*it.path).collect();
    assert_eq!(scaled.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_newest_evaluation_comes_true() {
    let place = Place::new(&["hello-1"]);
    place.settled().await;
    place.api.fail(|_| Some(Failure::Status(503)));
    place.worker.apply(&id("hello-1"), &waking(1));
    place.api.until(|writes| lines(writes).len() > 8).await;
    place.worker.apply(&id("hello-1"), &waking(4));
    place.api.until(|writes| lines(writes).len() > 16).await;
    assert_eq!(place.replicas("hello-1"), 0);
    place.api.mend();
    place.settled().await;
    assert_eq!(place.replicas("hello-1"), 4);
    let status = place.api.get(&format!("{AUTOSCALERS}/hello-1")).unwrap()["status"].clone();
    assert_eq!(status["desiredScale"], 4);
}

#[tokio::test(start_paused = true)]
async fn a_wake_does_not_wait_for_the_end_of_a_delay() {
    let place = Place::new(&["hello-1"]);
    place.settled().await;
    place.api.fail(|asked| asked.path.ends_with("/scale").then_some(Failure::Status(500)));
    place.worker.apply(&id("hello-1"), &waking(1));
    // 5 ms, 10 ms, ... and 20 s before the fourteenth try.
    let tries = |writes: &[Asked]| writes.iter().filter(|write| write.path.ends_with("/scale")).count();
    place.api.until(|writes| tries(writes) == 13).await;
    place.api.mend();
    let before = tokio::time::Instant::now();
    place.worker.apply(&id("hello-1"), &waking(3));
    place.settled().await;
    assert_eq!(place.replicas("hello-1"), 3);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_about_a_revision_whose_bucket_is_lost() {
    let place = Place::new(&["hello-1"]);
    place.settled().await;
    place.api.fail(|_| Some(Failure::Status(503)));
    place.worker.apply(&id("hello-1"), &waking(1));
    place.api.until(|writes| lines(writes).len() > 4).await;
    place.worker.index.lock().buckets(holding(&[]));
    place.worker.look_again(&id("hello-1"));
    place.api.mend();
    let before = lines(&place.api.writes()).len();
    place.worker.apply(&id("hello-1"), &waking(2));
    place.watch("hello-1");
    assert_eq!(lines(&place.settled().await).len(), before);
    assert_eq!(place.replicas("hello-1"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_was_made_for_another_version_is_made_anew() {
    let place = Place::new(&["hello-1"]);
    place.settled().await;
    // Its controller has changed the PodAutoscaler, and our watch has not shown it.
    let path = format!("{AUTOSCALERS}/hello-1");
    let mut changed = place.api.get(&path).unwrap();
    changed["metadata"]["generation"] = json!(2);
    place.api.put(&path, changed);
    place.worker.apply(&id("hello-1"), &waking(1));
    place.api.until(|writes| writes.iter().filter(|write| write.path.ends_with("/status")).count() > 2).await;
    place.watch("hello-1");
    place.settled().await;
    let status = place.api.get(&path).unwrap()["status"].clone();
    assert_eq!((&status["observedGeneration"], &status["desiredScale"]), (&json!(2), &json!(1)));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_created_is_in_the_status_until_it_can() {
    let place = Place::new(&["hello-1"]);
    place.settled().await;
    place.worker.learn(Fact::Metric(id("hello-1"), None));
    let taken = place.api.get(&format!("{METRICS}/hello-1")).unwrap();
    assert_eq!(taken["spec"]["scrapeTarget"], "hello-1-private");
    place.api.fail(|asked| (asked.path == METRICS).then_some(Failure::Status(403)));
    place.worker.apply(&id("hello-1"), &waking(1));
    let status = || place.api.get(&format!("{AUTOSCALERS}/hello-1")).unwrap()["status"].clone();
    while status()["conditions"][0]["reason"] != "FailedCreate" {
        let before = place.api.writes().len();
        place.api.until(|writes| writes.len() > before).await;
    }
    assert_eq!(place.replicas("hello-1"), 1, "pods come all the same");
    let told =
        place.api.until(|writes| events(writes).iter().any(|event| event["reason"] == "InternalError"));
    let told = events(&told.await);
    let told = told.iter().find(|event| event["reason"] == "InternalError").unwrap();
    assert_eq!(told["type"], "Warning");
    assert!(told["message"].as_str().unwrap().contains("create Metric: so the test says (403)"), "{told}");
}

/// The events that were written.
fn events(writes: &[Asked]) -> Vec<Value> {
    writes.iter().filter(|write| write.path == "/api/v1/namespaces/ns/events").map(Asked::json).collect()
}

#[tokio::test(start_paused = true)]
async fn each_change_of_scale_is_an_event_with_its_reason() {
    let place = Place::new(&["hello-1"]);
    for (pods, reason, words) in [
        (3, "Woken", "From 0 to 3 pods ("),
        (1, "Scaled", "From 3 to 1 pod ("),
        (0, "ScaledToZero", "From 1 to 0 pods ("),
    ] {
        let before = events(&place.api.writes()).len();
        let mut evaluation = evaluation(&RevisionSpec::default(), pods);
        evaluation.plan.scale = Some(pods);
        place.worker.apply(&id("hello-1"), &evaluation);
        let written = events(&place.api.until(|writes| events(writes).len() > before).await);
        let event = written.last().unwrap();
        assert_eq!((&event["reason"], &event["type"]), (&json!(reason), &json!("Normal")));
        let message = event["message"].as_str().unwrap();
        assert!(message.starts_with(words) && message.contains("): "), "{message}");
        let about = &event["involvedObject"];
        assert_eq!((&about["kind"], &about["uid"]), (&json!("PodAutoscaler"), &json!("hello-1")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_no_watch_shows_is_read_when_the_plan_changes() {
    let (place, bus) = (Place::new(&["hello-1"]), "/apis/example.com/v1/namespaces/ns/buses/b");
    scale_a_bus(&place, 2);
    place.worker.apply(&id("hello-1"), &waking(2));
    let writes = place.settled().await;
    assert!(
        writes.iter().all(|write| !write.path.ends_with("/scale")),
        "two are there: {:?}",
        lines(&writes)
    );
    place.worker.apply(&id("hello-1"), &waking(3));
    place.settled().await;
    assert_eq!(place.api.get(bus).unwrap()["spec"]["replicas"], 3);
    assert_eq!(place.api.reads_of(&format!("{bus}/scale")), 2, "once for each plan");
    let before = place.api.writes().len();
    for _ in 0..9 {
        place.worker.apply(&id("hello-1"), &waking(3));
        place.watch("hello-1");
    }
    assert_eq!(place.settled().await.len(), before);
    assert_eq!(place.api.reads_of(&format!("{bus}/scale")), 2, "not for other news");
}

/// Has the revision scale a `Bus`, which asks for so many pods.
fn scale_a_bus(place: &Place, pods: u32) {
    let path = format!("{AUTOSCALERS}/hello-1");
    let mut changed = place.api.get(&path).unwrap();
    changed["spec"]["scaleTargetRef"] = json!({"apiVersion": "example.com/v1", "kind": "Bus", "name": "b"});
    place.api.put(&path, changed);
    let bus = "/apis/example.com/v1/namespaces/ns/buses/b";
    place.api.put(bus, json!({"metadata": {}, "spec": {"replicas": pods}}));
    place.watch("hello-1");
}

#[tokio::test(start_paused = true)]
async fn with_knatives_role_a_scale_that_may_not_be_read_is_told_once_for_each_plan() {
    let (place, bus) = (Place::new(&["hello-1"]), "/apis/example.com/v1/namespaces/ns/buses/b");
    scale_a_bus(&place, 0);
    place.api.fail(|asked| {
        (asked.method == Method::GET && asked.path.ends_with("/scale")).then_some(Failure::Status(403))
    });
    for pods in [2, 2, 3] {
        place.worker.apply(&id("hello-1"), &waking(pods));
        place.settled().await;
        place.worker.read_targets().await;
        place.settled().await;
    }
    assert_eq!(place.api.get(bus).unwrap()["spec"]["replicas"], 3);
    let scales = lines(&place.api.writes()).iter().filter(|line| *line == "change scale of buses").count();
    assert_eq!(scales, 2);
}

#[tokio::test(start_paused = true)]
async fn what_others_do_to_a_target_that_no_watch_shows_is_put_right() {
    let (place, bus) = (Place::new(&["hello-1"]), "/apis/example.com/v1/namespaces/ns/buses/b");
    scale_a_bus(&place, 3);
    place.worker.apply(&id("hello-1"), &waking(3));
    let before = place.settled().await.len();
    for _ in 0..3 {
        place.worker.read_targets().await;
    }
    assert_eq!(place.settled().await.len(), before, "a read that tells nothing new leads to no write");

    scale_a_bus(&place, 7);
    place.worker.read_targets().await;
    let writes = place.settled().await;
    assert_eq!(lines(&writes[before..]), ["change scale of buses"]);
    assert_eq!(place.api.get(bus).unwrap()["spec"]["replicas"], 3);
}

#[tokio::test(start_paused = true)]
async fn what_no_watch_shows_is_read_every_half_minute() {
    let api = PretendApi::default();
    put_revision(&api, "hello-1");
    let path = format!("{AUTOSCALERS}/hello-1");
    let mut changed = api.get(&path).unwrap();
    changed["spec"]["scaleTargetRef"] = json!({"apiVersion": "example.com/v1", "kind": "Bus", "name": "b"});
    api.put(&path, changed);
    api.put("/apis/example.com/v1/namespaces/ns/buses/b", json!({"metadata": {}, "spec": {"replicas": 1}}));
    let (cluster, _settings, _buckets) = start_cluster(&api);
    let mut follower = pilotlight_autoscaler::Cluster::follow(&*cluster);
    assert!(follower.next().await.is_some());
    pilotlight_autoscaler::Cluster::apply(&*cluster, &id("hello-1"), &waking(1));
    let scale = "/apis/example.com/v1/namespaces/ns/buses/b/scale";
    let began = tokio::time::Instant::now();
    while api.reads_of(scale) < 4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let spent = began.elapsed();
    assert!(spent > 2 * READ_INTERVAL && spent < 4 * READ_INTERVAL, "{spent:?}");
}

#[tokio::test(start_paused = true)]
async fn stateful_sets_are_watched_where_one_is_named_and_it_is_allowed() {
    for (is_named, is_allowed) in [(false, true), (true, false), (true, true)] {
        let api = PretendApi::default();
        put_revision(&api, "hello-1");
        if is_named {
            let path = format!("{AUTOSCALERS}/hello-1");
            let mut changed = api.get(&path).unwrap();
            changed["spec"]["scaleTargetRef"] =
                json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s"});
            api.put(&path, changed);
        }
        api.raw(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            json!({"spec": {}, "status": {"allowed": is_allowed}}),
        );
        api.put(
            "/apis/apps/v1/namespaces/ns/statefulsets/s",
            json!({"metadata": {"namespace": "ns", "name": "s"}, "spec": {"replicas": 1, "selector": {}, "template": {}}}),
        );
        let (cluster, _settings, _buckets) = start_cluster(&api);
        let mut follower = pilotlight_autoscaler::Cluster::follow(&*cluster);
        assert!(follower.next().await.is_some(), "the start waits for no right");
        tokio::time::sleep(Duration::from_secs(10)).await;
        let is_listed = api.reads_of("/apis/apps/v1/statefulsets") > 0;
        assert_eq!(is_listed, is_named && is_allowed, "named: {is_named}, allowed: {is_allowed}");
        if !is_named {
            continue;
        }
        let mut waking = waking(1);
        waking.pods.ready = 1;
        pilotlight_autoscaler::Cluster::apply(&*cluster, &id("hello-1"), &waking);
        tokio::time::sleep(3 * READ_INTERVAL).await;
        let is_read = api.reads_of("/apis/apps/v1/namespaces/ns/statefulsets/s/scale") > 0;
        assert_eq!(is_read, !is_allowed, "named: {is_named}, allowed: {is_allowed}");
    }
}

/// A cluster in front of an API server, and what keeps its settings and its bucket.
fn start_cluster(
    api: &PretendApi,
) -> (Arc<KnativeCluster>, tokio::sync::watch::Sender<Arc<Settings>>, tokio::sync::watch::Sender<Arc<Buckets>>)
{
    let settings = tokio::sync::watch::channel(Arc::<Settings>::default());
    let buckets = tokio::sync::watch::channel(holding(&["b"]));
    let cluster = KnativeCluster::start(KnativeClusterParams {
        client: api.client(),
        clock: Clock::start(),
        settings: settings.1,
        buckets: buckets.1,
        cluster_domain: "cluster.local".to_owned(),
        resolve: resolve_nothing(),
        metrics: Metrics::new(),
    });
    (cluster, settings.0, buckets.0)
}

#[tokio::test(start_paused = true)]
async fn a_cluster_shows_what_was_listed_and_ends_with_its_last_handle() {
    let api = PretendApi::default();
    put_revision(&api, "hello-1");
    let (cluster, _settings, buckets) = start_cluster(&api);
    let mut follower = pilotlight_autoscaler::Cluster::follow(&*cluster);
    let Some(pilotlight_feed::Change::Set(shown, view)) = follower.next().await else { panic!("a revision") };
    assert_eq!(shown, id("hello-1"));
    let history = view.history.as_ref().unwrap();
    assert!(matches!(history.activity, Some(Activity::Inactive { timed_out: false, .. })));
    assert_eq!(follower.next().await, Some(pilotlight_feed::Change::Complete));

    let _ = buckets.send(holding(&[]));
    assert_eq!(follower.next().await, Some(pilotlight_feed::Change::Gone(id("hello-1"))));
    assert_eq!(api.writes().len(), 0);
    drop(cluster);
    while follower.next().await.is_some() {}
}
