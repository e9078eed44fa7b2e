//! A cluster without room: pods that wait for it are neither started nor there.

use std::path::Path;

use pilotlight_sim::scenario::file::Draft;
use pilotlight_sim::{Run, simulate};

#[test]
fn pods_that_wait_for_room_are_not_started_and_not_at_once() {
    // 30 users without a pause ask for 9 pods of 5 requests each at 70 %, and two have room.
    let text = "
load: {users: {steps: [{users: 30}], think: 0s}}
duration: 2m
app: {service-time: 100ms}
pods: {init: 2s, warm: 1}
cluster: {pods: 2}
settings: [{annotations: {target-burst-capacity: '-1'}, container-concurrency: 5}]
";
    let file = Draft::parse("full.yaml", text, Path::new("")).unwrap().load().value.unwrap();
    let outcome = simulate(&file.scenario, &file.settings[0], Run { seed: 1, timeline: true });
    assert_eq!((outcome.pods.peak, outcome.pods.starts), (2, 2));
    assert!(outcome.pods.pending_seconds > 100.0, "{}", outcome.pods.pending_seconds);
    assert_eq!(outcome.metric("pending-seconds"), Some(outcome.pods.pending_seconds));
    assert_eq!(outcome.pods.node_seconds, 0.0, "there are no nodes to speak of");
    let points = outcome.timeline.unwrap().points;
    assert!(points.iter().all(|point| point.ready + point.starting <= 2.0));
    assert!(points[20..110].iter().all(|point| point.pending >= 4.0 && point.nodes == 0.0));
}

#[test]
fn room_that_comes_lets_those_start_that_waited_for_it() {
    let text = "
load: {users: {steps: [{users: 30}], think: 0s}}
duration: 5m
app: {service-time: 100ms}
pods: {init: 2s, warm: 1, provision: 1m}
cluster: {nodes: {initial: 1, max: 3}, pods-per-node: 2}
settings: [{annotations: {target-burst-capacity: '-1'}, container-concurrency: 5}]
";
    let file = Draft::parse("grows.yaml", text, Path::new("")).unwrap().load().value.unwrap();
    let outcome = simulate(&file.scenario, &file.settings[0], Run { seed: 1, timeline: false });
    assert_eq!((outcome.pods.peak, outcome.pods.starts), (6, 6));
    assert!(outcome.pods.node_seconds > 300.0);
}

#[test]
fn an_adequate_service_is_not_better_than_an_oracle() {
    for (rate, service) in [(500, "50ms"), (100, "200ms"), (10, "1s"), (3, "7s")] {
        let text = format!(
            "load: {{constant: {{rate: {rate}, for: 60s, arrivals: uniform}}}}\napp: {{service-time: {service}}}\n\
             pods: {{init: 1s, warm: 1}}\n"
        );
        let file = Draft::parse("adequate.yaml", &text, Path::new("")).unwrap().load().value.unwrap();
        let outcome = simulate(&file.scenario, &file.settings[0], Run { seed: 1, timeline: false });
        assert!(outcome.pods.over_provision >= 0.999, "{rate}/s: {}", outcome.pods.over_provision);
        assert!(outcome.pods.oracle_pod_seconds >= 60.0);
    }
}
