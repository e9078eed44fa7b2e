//! What is around workloads, read at the start, hourly, and when a namespace has its first one: other autoscalers, policies,
//! quotas, and what leads traffic in this cluster.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use kube::Client;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::work::Worker;
use crate::refusal::{ClusterFacts, look};

/// Reads what is around workloads, for ever.
pub(crate) async fn survey_all(client: Client, system_namespace: String, worker: Arc<Worker>) {
    loop {
        let cluster = look_at_cluster(&client, &system_namespace).await;
        let planes: Vec<_> = cluster.data_planes().iter().map(|plane| plane.name()).collect();
        info!(?planes, "Data planes of the cluster");
        let cluster = Arc::new(cluster);
        worker.workloads.lock().set_cluster(Arc::clone(&cluster));
        let until = Instant::now() + BETWEEN;
        worker.workloads.lock().survey_again();
        loop {
            survey_new(&client, &cluster, &worker).await;
            tokio::select! {
                () = sleep_until(until) => break,
                () = worker.namespace_wanted.notified() => {}
            }
        }
    }
}

/// Reads what is around the workloads of namespaces that were not looked at yet.
async fn survey_new(client: &Client, cluster: &ClusterFacts, worker: &Arc<Worker>) {
    let namespaces = worker.workloads.lock().unsurveyed();
    let looks = stream::iter(namespaces).map(|namespace| async move {
        let facts = look::namespace(client, &namespace, cluster).await;
        (namespace, facts)
    });
    let mut looks = looks.buffer_unordered(AT_A_TIME);
    let mut has_failed = false;
    while let Some((namespace, facts)) = looks.next().await {
        match facts {
            Ok(facts) => {
                let about = worker.workloads.lock().set_namespace(&namespace, facts);
                worker.look_at(&about);
            }
            Err(error) => {
                warn!(namespace, %error, "What is around workloads was not read, and is tried again");
                has_failed = true;
            }
        }
    }
    if has_failed {
        sleep(PAUSE).await;
        worker.namespace_wanted.notify_one();
    }
}

async fn look_at_cluster(client: &Client, system_namespace: &str) -> ClusterFacts {
    loop {
        match look::cluster(client, system_namespace).await {
            Ok(facts) => return facts,
            Err(error) => {
                warn!(%error, "What is true of the cluster was not read, and is tried again");
                sleep(PAUSE).await;
            }
        }
    }
}

const BETWEEN: Duration = Duration::from_secs(3_600);
const PAUSE: Duration = Duration::from_secs(1);
/// Namespaces that are read at a time.
const AT_A_TIME: usize = 8;
