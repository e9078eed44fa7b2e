//! Metrics, traces and the request log of one proxy, as far as the operator asked for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use pilotlight_net::Request;

use crate::http_metrics::HttpMetrics;
use crate::names::RevisionNames;
use crate::request_log::RequestLog;
use crate::traces::Tracer;

pub(crate) struct Sinks {
    pub(crate) metrics: Option<HttpMetrics>,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) log: LogSlot,
    /// The revision of requests whose own has not been found out.
    pub(crate) revision: RevisionNames,
    pub(crate) sending_span: fn(&Request) -> String,
}

/// The request log that is in force; it may change while requests run.
#[derive(Default)]
pub(crate) struct LogSlot {
    /// Without a log a request reads this, and takes no lock.
    is_on: AtomicBool,
    log: RwLock<Option<Arc<RequestLog>>>,
}

impl LogSlot {
    pub(crate) fn new(log: Option<RequestLog>) -> Self {
        let slot = LogSlot::default();
        slot.set(log);
        slot
    }

    pub(crate) fn current(&self) -> Option<Arc<RequestLog>> {
        if self.is_on.load(Ordering::Relaxed) { self.log.read().clone() } else { None }
    }

    pub(crate) fn set(&self, log: Option<RequestLog>) {
        self.is_on.store(log.is_some(), Ordering::Relaxed);
        *self.log.write() = log.map(Arc::new);
    }
}
