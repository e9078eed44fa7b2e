//! Parts end and the API server is away, with workloads at every step of their lives.

use kube::ResourceExt;
use pilotlight_tests::cluster::api::{Outage, Requests};
use pilotlight_tests::cluster::plain::{Part, Tally};
use pilotlight_tests::eventually;
use rustix::process::Signal;

use crate::steps::{Steps, another_leads};
use crate::support::{LATER, cluster, cluster_of, created, goes_on, load, nothing_is_lost};

#[tokio::test]
async fn a_controller_that_is_killed_leaves_every_workload_at_its_step() {
    let cluster = cluster_of(2, 1).await;
    let steps = Steps::reach(&cluster).await;
    let leader = cluster.leader().await.expect("somebody leads");
    assert!(cluster.signal_part(&leader, Signal::KILL));
    cluster.end_part(&leader).await.expect("deleted");
    steps.go_on(&cluster).await;
    another_leads(&cluster, &leader).await;
}

#[tokio::test]
async fn activators_that_are_rolled_leave_every_workload_at_its_step() {
    let cluster = cluster_of(1, 2).await;
    let steps = Steps::reach(&cluster).await;
    for _ in 0..2 {
        let pods = cluster.parts(Part::Activator).await;
        let oldest = pods.iter().min_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|time| time.0));
        let pod = oldest.expect("two activators").name_any();
        cluster.end_part(&pod).await.expect("deleted");
        eventually("it has left", LATER, async || {
            let pods = cluster.parts(Part::Activator).await;
            (!pods.is_empty() && pods.iter().all(|each| each.name_any() != pod)).then_some(())
        })
        .await;
        cluster.has_ready_parts(Part::Activator, 2).await;
    }
    steps.go_on(&cluster).await;
}

/// Whatever was at a killed activator is lost with it, and what comes until it has left the slices.
#[tokio::test]
async fn an_activator_that_is_killed_leaves_the_slices_within_seconds() {
    let cluster = cluster_of(1, 2).await;
    created(&cluster, &pilotlight_tests::cluster::plain::WorkloadSpec::exact("web")).await;
    let first = load(&cluster, "web", 3);
    cluster.has_scale("web", 2, LATER).await;
    nothing_is_lost(&first.finish().await);
    let pod = cluster.parts(Part::Activator).await.remove(0);
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address");
    // It does not come back: it is stopped first, and a process that is stopped answers nobody.
    assert!(cluster.signal_part(&pod.name_any(), Signal::STOP));
    let is_out = async || {
        let slices = cluster.api::<k8s_openapi::api::discovery::v1::EndpointSlice>();
        let slices = slices.list(&kube::api::ListParams::default()).await.ok()?.items;
        let names_it =
            slices.iter().flat_map(|slice| &slice.endpoints).any(|each| each.addresses.contains(&ip));
        (!names_it && !slices.is_empty()).then_some(())
    };
    eventually("no slice names it", LATER, is_out).await;
    // The proxy hears of it a moment later: what it sends there until then waits for as long as a client does.
    let mut last = Tally::default();
    eventually("ten requests in a row are answered", LATER * 4, async || {
        last = load_of_ten(&cluster).await;
        last.lost.is_empty().then_some(())
    })
    .await;
    nothing_is_lost(&last);
    assert!(cluster.signal_part(&pod.name_any(), Signal::CONT));
    cluster.has_ready_parts(Part::Activator, 2).await;
}

async fn load_of_ten(cluster: &pilotlight_tests::cluster::plain::PlainCluster) -> Tally {
    let load = load(cluster, "web", 2);
    eventually("ten requests have ended", LATER, async || {
        let tally = load.so_far();
        (tally.answered + tally.lost.len() as u64 >= 10 || !tally.lost.is_empty()).then_some(())
    })
    .await;
    load.finish().await
}

#[tokio::test]
async fn while_the_api_server_is_away_requests_are_held_or_answered() {
    let cluster = cluster().await;
    let Some(server) = cluster.server.in_process("the API server is away") else { return };
    let steps = Steps::reach(&cluster).await;
    let load = load(&cluster, "busy", 1);
    for outage in [Outage::Refused, Outage::Silent] {
        server.faults().outage(outage);
        // Longer than a lease.
        goes_on(&load, 5 * 5).await;
        server.faults().heal();
        goes_on(&load, 5 * 2).await;
    }
    nothing_is_lost(&load.finish().await);
    steps.go_on(&cluster).await;
}

#[tokio::test]
async fn watches_that_break_and_expire_are_taken_up_again() {
    let cluster = cluster().await;
    let Some(server) = cluster.server.in_process("watches break and expire") else { return };
    let steps = Steps::reach(&cluster).await;
    server.faults().break_watches(Requests::all());
    server.faults().expire_watches(Requests::all());
    steps.go_on(&cluster).await;
}
