//! The state of an activator, as its controller and its probes ask for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderValue, header};
use pilotlight_activator::{Activator, RevisionActivity};
use pilotlight_net::{Admin, Body, Response, plain};
use pilotlight_process::{MetricsPage, admin_routes};
use tokio::sync::watch;

use super::listeners::PortState;
use crate::peers::{ActivatorStatus, STATUS_PATH, WorkloadActivity};

/// The state of an activator. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct StatusBoard {
    name: Arc<str>,
    activator: Activator,
    ports: watch::Receiver<PortState>,
    is_complete: Arc<AtomicBool>,
    is_leaving: Arc<AtomicBool>,
}

impl StatusBoard {
    /// A board that shows an activator with its ports; `is_complete`: every object has been listed once.
    pub(super) fn new(
        name: &str,
        activator: Activator,
        ports: watch::Receiver<PortState>,
        is_complete: Arc<AtomicBool>,
    ) -> Self {
        StatusBoard { name: name.into(), activator, ports, is_complete, is_leaving: Arc::default() }
    }

    /// The activator was told to stop.
    pub(super) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    /// The answer to the controller.
    pub(super) fn status(&self) -> ActivatorStatus {
        let ports = self.ports.borrow().clone();
        let busy = self.activator.busy().into_iter().map(|(id, busy)| (id, activity(busy)));
        let has_requests = |(_, activity): &(_, WorkloadActivity)| *activity != WorkloadActivity::default();
        ActivatorStatus {
            name: self.name.as_ref().to_owned(),
            table_version: ports.table_version,
            unbindable: ports.unbindable,
            is_complete: self.is_complete.load(Ordering::Acquire),
            is_leaving: self.is_leaving.load(Ordering::Acquire),
            workloads: busy.filter(has_requests).collect(),
        }
    }

    /// Whether slices may name this activator, and if not, why.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.is_leaving.load(Ordering::Acquire) {
            return Err("told to stop; still serving".to_owned());
        }
        if !self.is_complete.load(Ordering::Acquire) {
            return Err("not every object has been listed yet".to_owned());
        }
        match self.ports.borrow().missing {
            (0, _) | (_, None) => Ok(()),
            (count, Some(first)) => {
                Err(format!("{count} ports that slices name are not bound, port {first} the first of them"))
            }
        }
    }

    /// The routes of the admin port.
    pub(super) fn routes(&self, page: MetricsPage) -> Admin {
        let (ready_of, status_of) = (self.clone(), self.clone());
        admin_routes(move || page.render(), move || ready_of.check())
            .route(STATUS_PATH, move |_| std::future::ready(shown(&status_of.status())))
    }
}

fn activity(busy: RevisionActivity) -> WorkloadActivity {
    let mut pods = busy.pods;
    pods.retain(|_, requests| *requests > 0);
    WorkloadActivity { waiting: u32::try_from(busy.queued).unwrap_or(u32::MAX), pods }
}

fn shown(status: &ActivatorStatus) -> Response {
    match serde_json::to_vec(status) {
        Ok(json) => {
            let mut response = Response::new(Body::full(json));
            let json_type = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json_type);
            response
        }
        Err(error) => plain(http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
