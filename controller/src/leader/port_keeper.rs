//! The keeper of the table of ports: every port of every Service that belongs to a workload has one, and what is written
//! names the version that it replaces, so that two leaders cannot allot one port twice.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, PostParams};
use pilotlight_kubernetes::write::{WriteError, within};
use tokio::time::sleep;
use tracing::{info, warn};

use super::work::Worker;
use crate::ports::{CONFIG_MAP, PortTable};

/// Keeps the table, for ever. What changes while a write is under way is written together by the next one.
pub(crate) async fn keep_ports(client: Client, namespace: String, worker: Arc<Worker>) {
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let mut pause = FIRST_PAUSE;
    loop {
        worker.ports_wanted.notified().await;
        while let Some(table) = next_table(&worker) {
            let object = table.encode(&namespace);
            let params = PostParams::default();
            let written = match table.version() {
                "" => within(api.create(&params, &object)).await,
                _ => within(api.replace(CONFIG_MAP, &params, &object)).await,
            };
            match written {
                Ok(object) => {
                    let (table, _) = PortTable::decode(&object);
                    info!(
                        version = table.version(),
                        ports = table.entries().count(),
                        "Table of ports is written"
                    );
                    worker.metrics.writes.count(OPERATION);
                    worker.learn_table(table);
                    pause = FIRST_PAUSE;
                }
                Err(error) => {
                    worker.metrics.write_errors.count(OPERATION);
                    if !matches!(error, WriteError::Changed(_)) {
                        warn!(%error, "Table of ports was not written, and is tried again until it works");
                    }
                    // The watch is about to tell what there is.
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// The table that should be written; `None`: it is as it should be.
fn next_table(worker: &Worker) -> Option<PortTable> {
    let workloads = worker.workloads.lock();
    if !workloads.is_complete() {
        return None;
    }
    let mut table = PortTable::clone(workloads.table());
    let mut is_adopted = false;
    if table.version().is_empty() {
        for (owner, port) in workloads.standing_ports() {
            is_adopted |= table.adopt(&owner, port);
        }
    }
    let (wanted, unbindable) = (workloads.wanted_ports(), workloads.unbindable_ports());
    drop(workloads);
    let done = table.reconcile(worker.clock.now(), &wanted, &unbindable);
    if let Some(exhausted) = done.exhausted {
        warn!(%exhausted, "Some ports of Services have no port of the activators");
    }
    (done.has_changed || is_adopted).then_some(table)
}

const OPERATION: &str = "write port table";
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
