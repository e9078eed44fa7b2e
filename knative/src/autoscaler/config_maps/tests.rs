//! ConfigMaps at the start, and changed afterwards at an API server in the test.

use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_core::MeshMode;
use serde_json::json;

use super::*;
use pilotlight_kubernetes::pretend::PretendApi;

const MAPS: &str = "/api/v1/namespaces/knative-serving/configmaps";

fn map(api: &PretendApi, name: &str, data: &serde_json::Value) {
    api.put(&format!("{MAPS}/{name}"), json!({ "metadata": {}, "data": data }));
}

async fn started(maps: &[(&str, serde_json::Value)]) -> (PretendApi, Client, anyhow::Result<ConfigMaps>) {
    let (api, client) = PretendApi::start();
    for (name, data) in maps {
        map(&api, name, data);
    }
    let read = ConfigMaps::read(&client, "knative-serving", "autoscaler", &ConfigMapNames::default()).await;
    (api, client, read)
}

fn usual() -> Vec<(&'static str, serde_json::Value)> {
    vec![
        ("config-autoscaler", json!({ "stable-window": "30s" })),
        ("config-deployment", json!({ "progressDeadline": "5m" })),
        ("config-network", json!({ "mesh-compatibility-mode": "enabled" })),
        ("config-logging", json!({ "loglevel.autoscaler": "debug" })),
        ("config-features", json!({ "stable-window": "not for us" })),
    ]
}

#[tokio::test]
async fn what_is_in_force_at_the_start_is_what_the_maps_say() {
    let (_api, _client, read) = started(&usual()).await;
    let maps = read.unwrap();
    assert_eq!(maps.settings().autoscaler.stable_window, Duration::from_secs(30));
    assert_eq!(maps.settings().progress_deadline, Duration::from_secs(300));
    assert_eq!(maps.settings().mesh, MeshMode::Enabled);
    // Not written: the defaults.
    assert_eq!(*maps.leader_election(), LeaderElectionConfig::default());
    assert_eq!(maps.log_level(), Some(Level::DEBUG));
}

#[tokio::test]
async fn all_that_is_wrong_at_the_start_is_told_at_once() {
    let (_api, _client, read) = started(&[
        ("config-autoscaler", json!({ "stable-window": "1s", "max-scale-up-rate": "1" })),
        ("config-deployment", json!({ "progress-deadline": "soon" })),
        ("config-leader-election", json!({ "buckets": "99" })),
    ])
    .await;
    let wrong = read.unwrap_err();
    let wrong = wrong.downcast_ref::<WrongSettings>().expect("the code of wrong settings").to_string();
    let lines: Vec<&str> = wrong.lines().collect();
    assert_eq!(lines.len(), 5, "{wrong}");
    assert_eq!(lines[0], "the ConfigMap knative-serving/config-network is missing");
    assert!(
        lines[1..]
            .iter()
            .any(|line| line.starts_with("knative-serving/config-autoscaler: stable-window: \"1s\"")),
        "{wrong}"
    );
    assert!(wrong.contains("knative-serving/config-leader-election: buckets: \"99\""), "{wrong}");
}

#[tokio::test]
async fn a_legal_change_is_followed_and_an_illegal_one_is_refused_and_told() {
    let (api, client, read) = started(&usual()).await;
    let refused = Arc::new(Mutex::new(Vec::new()));
    let on_refused: OnRefused = {
        let refused = Arc::clone(&refused);
        Arc::new(move |name, _, faults| refused.lock().push((name.to_owned(), in_one_line(faults))))
    };
    let (levels, mut level) = channel(Level::DEBUG);
    let maps = read.unwrap();
    let on_level = move |level| {
        levels.send_replace(level);
    };
    let mut settings = maps.follow(client, "knative-serving", Metrics::new(), on_refused, on_level);
    let first = settings.borrow_and_update().clone();

    map(&api, "config-autoscaler", &json!({ "stable-window": "1s" }));
    // The same maps again, and one that is gone, are no news. The mesh mode is read once.
    map(&api, "config-deployment", &json!({ "progress-deadline": "300s" }));
    map(&api, "config-network", &json!({ "mesh-compatibility-mode": "disabled" }));
    api.delete(&format!("{MAPS}/config-network"));
    map(&api, "config-logging", &json!({ "loglevel.autoscaler": "warn" }));
    tokio::time::timeout(Duration::from_secs(30), level.wait_for(|it| *it == Level::WARN))
        .await
        .unwrap()
        .unwrap();
    assert!(!settings.has_changed().unwrap());
    let expected = "stable-window: \"1s\" is not a duration between 6s and 1h0m0s, in whole seconds";
    assert_eq!(*refused.lock(), [("config-autoscaler".to_owned(), expected.to_owned())]);

    map(&api, "config-autoscaler", &json!({ "stable-window": "40s" }));
    tokio::time::timeout(Duration::from_secs(30), settings.changed()).await.unwrap().unwrap();
    let now = settings.borrow().clone();
    assert_eq!(now.autoscaler.stable_window, Duration::from_secs(40));
    assert_eq!((now.progress_deadline, now.mesh), (first.progress_deadline, first.mesh));
}
