//! Two autoscalers and two activators end in turn under load. `PILOTLIGHT_MINUTES=10` goes on for so long.

use std::env;
use std::time::{Duration, Instant};

use kube::ResourceExt;

use crate::support::{LATER, cluster_of, goes_on, nothing_is_lost, one_request_a_pod};

/// An autoscaler is killed. An activator is asked to go: killed, it would take along the requests that are inside.
#[tokio::test]
async fn parts_that_end_in_turn_lose_no_request_and_move_no_count() {
    let cluster = cluster_of(2, 2).await;
    one_request_a_pod(&cluster, "hello", &[]).await;
    let load = cluster.ingress("hello").load(3, "/?sleep=200");
    cluster.has_scale("hello", 3, LATER).await;
    let before = cluster.replicas_of("hello");
    let minutes: f64 = env::var("PILOTLIGHT_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let (begun, time) = (Instant::now(), Duration::from_secs_f64(60.0 * minutes));
    for round in 0.. {
        for part in ["autoscaler", "activator"] {
            let pods = cluster.parts(part).await;
            let pod = pods[round % pods.len()].name_any();
            match part {
                "autoscaler" => assert!(cluster.kill_part(&pod), "{pod} does not run"),
                _ => cluster.end_part(&pod).await.expect("ended"),
            }
            // A while under load with one of two, and then with both.
            goes_on(&load, 3 * 5 * 2).await;
            cluster.has_ready_parts(part, 2).await;
            goes_on(&load, 3 * 5 * if minutes > 0.0 { 8 } else { 1 }).await;
        }
        if round >= 1 && begun.elapsed() >= time {
            break;
        }
    }
    assert_eq!(cluster.replicas_of("hello"), before);
    nothing_is_lost(&load.finish().await);
}
