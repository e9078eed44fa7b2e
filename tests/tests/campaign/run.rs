//! A plan is carried out.

use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use pilotlight_controller::crd::RequestAutoscaler;
use pilotlight_tests::cluster::api::Requests;
use pilotlight_tests::cluster::plain::{
    Leftovers, Part, PlainCluster, PlainLoad, PlainParams, Tally, Way, WorkloadSpec,
};
use pilotlight_tests::eventually;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::plan::{AsleepEdit, AwakeEdit, Cycle, Fault, Faults, Plan, Workload};

/// The outcome of a campaign.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    cycles: usize,
    faults: Vec<Fault>,
    tally: Tally,
    pods_left: usize,
    leftovers: Leftovers,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        let Tally { sent, answered, lost, wrong, .. } = &self.tally;
        sent == answered
            && lost.is_empty()
            && wrong.is_empty()
            && self.pods_left == 0
            && self.leftovers.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { cycles, faults, tally, pods_left, leftovers } = self;
        let faults = faults.len();
        write!(f, "{cycles} cycles, {faults} faults: {tally}; {pods_left} pods left, {leftovers}")
    }
}

pub(crate) async fn run(plan: Plan) -> Verdict {
    let quick = PlainParams::quick(env!("CARGO_BIN_EXE_clustered"), env!("CARGO_BIN_EXE_plain_app"));
    let cluster =
        PlainCluster::start(PlainParams { controllers: 2, activators: 2, ..quick }).await.expect("a cluster");
    for workload in &plan.workloads {
        cluster.create(&workload.spec).await.expect("created");
    }
    let mut verdict = Verdict::default();
    let workloads = join_all(plan.workloads.iter().map(|workload| live(&cluster, workload)));
    let mut faults = Vec::new();
    let tallies = {
        let troubled = trouble(&cluster, plan.faults.clone(), &mut faults);
        tokio::pin!(workloads, troubled);
        tokio::select! {
            tallies = &mut workloads => tallies,
            () = &mut troubled => unreachable!("faults have no end"),
        }
    };
    if let Some(server) = cluster.server.in_process("faults on demand") {
        server.faults().heal();
    }
    verdict.cycles = plan.workloads.iter().map(|workload| workload.cycles.len()).sum();
    verdict.faults = faults;
    tallies.into_iter().for_each(|tally| verdict.tally.add(tally));
    for workload in &plan.workloads {
        cluster.has_scale(&workload.spec.name, 0, LATER).await;
    }
    verdict.leftovers = settled(&cluster).await;
    take_all_away(&cluster, &plan.workloads).await;
    let last = settled(&cluster).await;
    verdict.leftovers.nowhere.extend(last.nowhere);
    verdict.leftovers.ports.extend(last.ports);
    let left = join_all(plan.workloads.iter().map(|workload| cluster.pods_of(&workload.spec.name))).await;
    verdict.pods_left = left.into_iter().flatten().map(|pods| pods.len()).sum();
    if !verdict.is_clean() {
        eprintln!("--- what the cluster said\n{}---", cluster.small.log);
    }
    verdict
}

/// The life of one workload. It begins and ends asleep.
async fn live(cluster: &PlainCluster, Workload { spec, cycles }: &Workload) -> Tally {
    let (mut tally, mut spec) = (Tally::default(), spec.clone());
    cluster.passes(&spec, LATER).await;
    for cycle in cycles {
        sleep(cycle.pause).await;
        if let Some(edit) = cycle.asleep {
            edit_asleep(cluster, &mut spec, edit).await;
        }
        tally.add(awake(cluster, &spec, cycle).await);
        cluster.has_scale(&spec.name, 0, LATER).await;
    }
    tally
}

/// Load comes, brings pods, and ends.
async fn awake(cluster: &PlainCluster, spec: &WorkloadSpec, cycle: &Cycle) -> Tally {
    let path = format!("/?sleep={}", cycle.sleep);
    let loads: Vec<PlainLoad> = spec
        .ports
        .iter()
        .map(|port| {
            let way = match (port.is_tcp, port.app_protocol) {
                (true, _) => Way::Line,
                (_, "kubernetes.io/h2c") => Way::Http2,
                _ => cycle.http,
            };
            cluster.load(&spec.name, port, way, cycle.clients, &path)
        })
        .collect();
    goes_on(&loads, cycle.answers).await;
    if let Some(edit) = cycle.awake {
        edit_awake(cluster, spec, edit, &loads).await;
        goes_on(&loads, cycle.answers).await;
    }
    let mut tally = Tally::default();
    for outcome in join_all(loads.into_iter().map(PlainLoad::finish)).await {
        tally.add(outcome);
    }
    tally
}

/// Waits until every load has so many more requests behind it, answered or lost.
async fn goes_on(loads: &[PlainLoad], more: u64) {
    let ended = |load: &PlainLoad| {
        let tally = load.so_far();
        tally.answered + (tally.lost.len() + tally.wrong.len()) as u64
    };
    for load in loads {
        let goal = ended(load) + more;
        eventually("the load goes on", LATER, async || (ended(load) >= goal).then_some(())).await;
    }
}

async fn edit_asleep(cluster: &PlainCluster, spec: &mut WorkloadSpec, edit: AsleepEdit) {
    let name = spec.name.clone();
    match edit {
        AsleepEdit::RemakeAutoscaler => {
            until_taken(|| cluster.delete::<RequestAutoscaler>(&name)).await;
            is_gone(cluster, &name).await;
            until_taken(|| cluster.create_autoscaler(spec)).await;
        }
        AsleepEdit::RemakeService => {
            until_taken(|| cluster.delete::<Service>(&name)).await;
            make_service(cluster, spec).await;
        }
        AsleepEdit::RenamePort => {
            // Pods keep the name that they know the number by.
            let mut service = spec.service();
            let port = &mut service["spec"]["ports"][0];
            port["targetPort"] = spec.ports[0].target.into();
            spec.ports[0].name = if spec.ports[0].name == "http" { "web" } else { "http" };
            port["name"] = spec.ports[0].name.into();
            patch::<Service>(cluster, &name, json!({ "spec": { "ports": service["spec"]["ports"] } })).await;
            patch::<Deployment>(
                cluster,
                &name,
                json!({ "spec": { "template": spec.deployment()["spec"]["template"] } }),
            )
            .await;
            let renamed = spec.ports[0].name;
            eventually("the table has the new name", LATER, async || {
                let table = cluster.port_table().await.ok()?;
                table.entries().find(|(owner, _)| owner.service == name && owner.port == renamed).map(drop)
            })
            .await;
        }
        AsleepEdit::Wake => {
            patch::<Deployment>(cluster, &name, json!({ "spec": { "replicas": 2 } })).await;
            cluster.has_scale(&name, 2, LATER).await;
        }
    }
    cluster.passes(spec, LATER).await;
}

async fn edit_awake(cluster: &PlainCluster, spec: &WorkloadSpec, edit: AwakeEdit, loads: &[PlainLoad]) {
    let name = &spec.name;
    match edit {
        AwakeEdit::Roll => {
            let version = jiff::Timestamp::now().to_string();
            let metadata = json!({ "annotations": { "version": version } });
            patch::<Deployment>(cluster, name, json!({ "spec": { "template": { "metadata": metadata } } }))
                .await;
        }
        AwakeEdit::Scale(replicas) => {
            patch::<Deployment>(cluster, name, json!({ "spec": { "replicas": replicas } })).await;
        }
        AwakeEdit::Target(target) => {
            patch::<RequestAutoscaler>(cluster, name, json!({ "spec": { "target": target } })).await;
        }
        AwakeEdit::Selector => {
            patch::<Service>(cluster, name, json!({ "spec": { "selector": { "app": name } } })).await;
            goes_on(loads, 20).await;
            patch::<Service>(cluster, name, json!({ "spec": { "selector": null } })).await;
            cluster.passes(spec, LATER).await;
        }
    }
}

/// Brings trouble until it is dropped.
async fn trouble(cluster: &PlainCluster, faults: Faults, done: &mut Vec<Fault>) {
    let Some(server) = cluster.server.in_process("faults on demand") else {
        return std::future::pending().await;
    };
    for (pause, fault) in faults {
        sleep(pause).await;
        cluster.small.log.say("campaign", format!("{fault:?}"));
        done.push(fault);
        match fault {
            Fault::KillLeader => {
                if let Some(leader) = cluster.leader().await {
                    cluster.signal_part(&leader, Signal::KILL);
                }
                cluster.has_ready_parts(Part::Controller, 2).await;
            }
            Fault::EndController(which) => end(cluster, Part::Controller, which).await,
            Fault::EndActivator(which) => end(cluster, Part::Activator, which).await,
            Fault::Outage(outage, time) => {
                server.faults().outage(outage);
                sleep(time).await;
                server.faults().heal();
            }
            Fault::BreakWatches => server.faults().break_watches(Requests::all()),
            Fault::ExpireWatches => server.faults().expire_watches(Requests::all()),
            Fault::Lag(lag) => cluster.small.proxy.set_lag(lag),
        }
    }
}

/// A pod of a part ends politely, and another takes its place.
async fn end(cluster: &PlainCluster, part: Part, which: usize) {
    let pods = cluster.parts(part).await;
    let Some(pod) = pods.get(which).map(ResourceExt::name_any) else { return };
    cluster.end_part(&pod).await.expect("deleted");
    eventually("it has left", LATER, async || {
        let pods = cluster.parts(part).await;
        (pods.len() == 2 && pods.iter().all(|each| each.name_any() != pod)).then_some(())
    })
    .await;
    cluster.has_ready_parts(part, 2).await;
}

async fn is_gone(cluster: &PlainCluster, name: &str) {
    eventually("the RequestAutoscaler is gone", LATER, async || {
        cluster.api::<RequestAutoscaler>().get_opt(name).await.ok()?.is_none().then_some(())
    })
    .await;
}

async fn make_service(cluster: &PlainCluster, spec: &WorkloadSpec) {
    let service: Service = serde_json::from_value(spec.service()).expect("a Service");
    eventually("the Service is there", LATER, async || {
        // An answer may have been lost.
        let _ = cluster.api::<Service>().create(&PostParams::default(), &service).await;
        cluster.api::<Service>().get_opt(&spec.name).await.ok()?.map(drop)
    })
    .await;
}

/// Patches again until the API server is there.
async fn patch<K>(cluster: &PlainCluster, name: &str, patch: Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + fmt::Debug
        + serde::de::DeserializeOwned,
{
    until_taken(async || cluster.patch::<K>(name, patch.clone()).await.map(drop)).await;
}

/// Asks again until the API server is there. What is gone or there already is as good.
async fn until_taken<F: Future<Output = anyhow::Result<()>>>(ask: impl Fn() -> F) {
    eventually("the API server takes it", LATER, async || match ask().await {
        Ok(()) => Some(()),
        Err(error) => {
            let status = error.downcast_ref::<kube::Error>();
            status.filter(|error| matches!(error, kube::Error::Api(status) if status.code == 404)).map(drop)
        }
    })
    .await;
}

/// Waits until nothing is left that should not be there, or long enough.
async fn settled(cluster: &PlainCluster) -> Leftovers {
    let mut last = Leftovers::default();
    for _ in 0..LOOKS {
        if let Ok(left) = cluster.leftovers().await {
            if left.is_empty() {
                return left;
            }
            last = left;
        }
        sleep(BETWEEN_LOOKS).await;
    }
    last
}

/// Deletes every workload: first what scales it, then the rest.
async fn take_all_away(cluster: &PlainCluster, workloads: &[Workload]) {
    join_all(workloads.iter().map(async |workload| {
        let name = &workload.spec.name;
        until_taken(|| cluster.delete::<RequestAutoscaler>(name)).await;
        is_gone(cluster, name).await;
        until_taken(|| cluster.delete::<Service>(name)).await;
        until_taken(|| cluster.delete::<Deployment>(name)).await;
        eventually("no pod is left", LATER, async || cluster.pods_of(name).await?.is_empty().then_some(()))
            .await;
        eventually("no slice is left", LATER, async || {
            let labels = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
            cluster.api::<EndpointSlice>().list(&labels).await.ok()?.items.is_empty().then_some(())
        })
        .await;
    }))
    .await;
}

/// Time for what takes a stable window or two, with everything that goes wrong meanwhile.
const LATER: Duration = Duration::from_secs(180);
const LOOKS: u32 = 60;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
