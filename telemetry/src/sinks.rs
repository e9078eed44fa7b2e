//! Metrics, traces and the request log of one proxy, as far as the operator asked for them.

use pilotlight_net::Request;

use crate::http_metrics::HttpMetrics;
use crate::names::RevisionNames;
use crate::request_log::RequestLog;
use crate::traces::Tracer;

pub(crate) struct Sinks {
    pub(crate) metrics: Option<HttpMetrics>,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) log: Option<RequestLog>,
    /// The revision of requests whose own has not been found out.
    pub(crate) revision: RevisionNames,
    pub(crate) sending_span: fn(&Request) -> String,
}
