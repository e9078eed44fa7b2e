//! Processes that stand for leases at one API server, over real sockets.

use super::*;
use crate::pretend::{Asked, Failure, PretendApi};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/knative-serving/leases";

fn stand(client: &kube::Client, identity: &str, names: &[&str], times: LeaseTimes) -> Leases {
    Leases::start(LeasesParams {
        client: client.clone(),
        clock: Clock::start(),
        namespace: "knative-serving".to_owned(),
        identity: identity.to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        times,
    })
}

async fn until(leases: &Leases, holds: impl Fn(&LeaseState) -> bool) {
    let mut state = leases.state();
    let waited = tokio::time::timeout(Duration::from_secs(30), state.wait_for(|state| holds(state))).await;
    let _ = waited.expect("within half a minute").unwrap();
}

fn held(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The writes so far.
fn targets(api: &PretendApi) -> Vec<String> {
    api.writes().iter().map(Asked::target).collect()
}

#[tokio::test]
async fn a_successor_takes_over_as_soon_as_the_holder_stops() {
    let (api, client) = PretendApi::start();
    // A lease lasts a minute: one that is waited for would be too late.
    let (all, times) = (["a", "b"], LeaseTimes::default());
    let one = stand(&client, "one_10.0.0.1", &all, times);
    until(&one, |state| state.held == held(&all)).await;
    let two = stand(&client, "two_10.0.0.2", &all, times);
    until(&two, |state| state.holders.values().filter(|it| *it == "one_10.0.0.1").count() == 2).await;
    assert!(two.state().borrow().held.is_empty());
    one.stop().await;
    until(&two, |state| state.held == held(&all)).await;
    let spec = api.get(&format!("{LEASES}/a")).unwrap()["spec"].clone();
    assert_eq!(spec["holderIdentity"], "two_10.0.0.2");
    assert_eq!(
        (spec["leaseTransitions"].as_i64(), spec["leaseDurationSeconds"].as_i64()),
        (Some(1), Some(60))
    );
}

#[tokio::test]
async fn a_holder_without_an_api_server_gives_up_and_is_back_when_it_answers() {
    let (api, client) = PretendApi::start();
    let times = LeaseTimes {
        duration: Duration::from_secs(3),
        renew_deadline: Duration::from_secs(1),
        retry_period: Duration::from_millis(100),
    };
    let one = stand(&client, "one", &["a"], times);
    until(&one, |state| state.held == held(&["a"])).await;
    api.fail(|_| Some(Failure::Status(500)));
    until(&one, |state| state.held.is_empty()).await;
    api.mend();
    until(&one, |state| state.held == held(&["a"])).await;
}

#[tokio::test]
async fn whoever_vanishes_is_succeeded_when_its_lease_has_run_out() {
    let (_api, client) = PretendApi::start();
    let times = LeaseTimes {
        duration: Duration::from_secs(1),
        renew_deadline: Duration::from_millis(600),
        retry_period: Duration::from_millis(100),
    };
    let one = stand(&client, "one", &["a"], times);
    until(&one, |state| state.held == held(&["a"])).await;
    let two = stand(&client, "two", &["a"], times);
    until(&two, |state| state.holders.contains_key("a")).await;
    drop(one);
    until(&two, |state| state.held == held(&["a"])).await;
}

#[tokio::test]
async fn leases_of_others_are_none_of_ours() {
    let (api, client) = PretendApi::start();
    let other = serde_json::json!({ "metadata": {}, "spec": { "holderIdentity": "controller" } });
    api.put(&format!("{LEASES}/controller.00"), other);
    let one = stand(&client, "one", &["a"], LeaseTimes::default());
    until(&one, |state| state.held == held(&["a"])).await;
    assert_eq!(one.state().borrow().holders.len(), 1);
    assert_eq!(targets(&api), [format!("POST {LEASES}")]);
}

#[tokio::test]
async fn a_lease_that_is_deleted_is_made_anew() {
    let (api, client) = PretendApi::start();
    let one = stand(&client, "one", &["a"], LeaseTimes::default());
    until(&one, |state| state.held == held(&["a"])).await;
    api.delete(&format!("{LEASES}/a"));
    let mut state = one.state();
    while api.writes().len() < 2 {
        tokio::time::timeout(Duration::from_secs(30), state.changed()).await.expect("it is lost").unwrap();
    }
    until(&one, |state| state.held == held(&["a"])).await;
    assert_eq!(targets(&api), [format!("POST {LEASES}"), format!("POST {LEASES}")]);
}
