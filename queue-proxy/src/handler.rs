//! The way of a request through the queue-proxy, from top to bottom.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, StatusCode};
use pilotlight_config::process::QueueProxyEnv;
use pilotlight_core::RequestKind;
use pilotlight_net::headers::{self, Marks, is_kubelet_probe, is_probe};
use pilotlight_net::probe::answer_network_probe;
use pilotlight_net::{
    Body, Breaker, ByteBudget, Client, Fault, Handler, Request, Response, Timeouts, UpstreamParams,
    Upstreams, error, hold_while, plain, prepare_forward, prepare_response, with_timeouts,
};
use tracing::debug;

use crate::forwarded::add_forwarded;
use crate::metrics::Metrics;
use crate::quiet::Quiet;
use crate::readiness::Readiness;
use crate::report::Reporter;
use crate::request_log::RequestLog;

/// Takes requests to the app.
pub(crate) struct Proxy {
    app: SocketAddr,
    upstreams: Upstreams,
    timeouts: Timeouts,
    // None: unlimited.
    breaker: Option<Breaker>,
    body_bytes: ByteBudget,
    readiness: Arc<Readiness>,
    quiet: Arc<Quiet>,
    reporter: Reporter,
    metrics: Metrics,
    // None: nobody asked for one.
    request_log: Option<Arc<RequestLog>>,
}

impl Handler for Proxy {
    async fn handle(&self, client: &Client, mut request: Request) -> Response {
        let logged = self.request_log.as_ref().and_then(|log| log.note(client.address(), &request));
        let marks = Marks::of(request.headers());
        let answer = if marks.any(Marks::PROBE) { self.answer_probe(request.headers()).await } else { None };
        let response = match answer {
            Some(answer) => answer,
            None => {
                self.quiet.request_arrived();
                // Pinned here: handed over by value it would be kept twice, once as an argument and once to be polled.
                let call = pin!(self.proxy(client, &mut request, marks));
                with_timeouts(client, self.timeouts, "request timeout", call).await
            }
        };
        match logged {
            Some(logged) => logged.until_the_end_of(response),
            None => response,
        }
    }
}

impl Proxy {
    /// A request that is no probe for us. The time it waits for its turn counts: as load, and against its timeouts.
    async fn proxy(&self, client: &Client, request: &mut Request, marks: Marks) -> Response {
        if marks.any(Marks::FORWARDED) {
            add_forwarded(request.headers_mut());
        }
        if marks.any(Marks::PROBE) && is_kubelet_probe(request.headers()) {
            return self.forward(client, request, marks).await;
        }
        let counted = self.reporter.request_started(kind(request.headers(), marks));
        if marks.any(Marks::ORIGINAL_HOST) {
            restore_original_host(request.headers_mut());
        }
        let permit = match &self.breaker {
            None => None,
            Some(breaker) => match hold_while(request, &self.body_bytes, breaker.acquire()).await {
                Ok(Ok(permit)) => Some(permit),
                Ok(Err(_)) => return plain(StatusCode::SERVICE_UNAVAILABLE, "pending request queue full"),
                Err(client_left) => return error::respond(&client_left),
            },
        };
        let is_probe = marks.any(Marks::PROBE) && is_probe(request.headers());
        let invocation = (!is_probe).then(|| self.metrics.invocation_started());
        let response = self.forward(client, request, marks).await;
        let status = response.status();
        response.map(|body| {
            body.watched(move |ending| {
                // Both end with the response's last byte, not with its first.
                drop((counted, permit));
                if let Some(invocation) = invocation {
                    invocation.ended(status, ending);
                }
            })
        })
    }

    /// What limits the requests, if anything does.
    pub(crate) fn breaker(&self) -> Option<Breaker> {
        self.breaker.clone()
    }

    async fn forward(&self, client: &Client, request: &mut Request, marks: Marks) -> Response {
        prepare_forward(request, client, marks);
        match self.upstreams.send(self.app, request).await {
            Ok(mut response) => {
                prepare_response(&mut response);
                if response.status() == StatusCode::BAD_GATEWAY {
                    // An app that is a gateway itself does not speak for us.
                    response.headers_mut().remove(headers::REASON);
                }
                response
            }
            Err(failure) => {
                debug!(error = %failure, "Cannot forward a request to the app");
                let mut response = error::respond(failure.error());
                if failure.error().fault() == Fault::Upstream {
                    let reason = HeaderValue::from_static(headers::APP_FAILED);
                    response.headers_mut().insert(headers::REASON, reason);
                }
                response
            }
        }
    }

    async fn answer_probe(&self, headers: &HeaderMap) -> Option<Response> {
        let asked = headers.get(headers::NETWORK_PROBE);
        if !PROBERS.iter().any(|prober| headers::user_agent_starts_with(headers, prober)) {
            let answer = answer_network_probe(headers)?;
            return Some(if self.quiet.is_draining() { shutting_down() } else { answer });
        }
        if self.quiet.is_draining() {
            return Some(shutting_down());
        }
        match asked {
            Some(value) if value == headers::QUEUE => Some(if self.readiness.is_ready().await {
                Response::new(Body::full(headers::QUEUE))
            } else {
                error::empty(StatusCode::SERVICE_UNAVAILABLE)
            }),
            _ => {
                let value = asked.map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
                Some(plain(StatusCode::BAD_REQUEST, format!("unexpected probe header value: {value}")))
            }
        }
    }
}

impl Proxy {
    pub(crate) fn new(
        env: &QueueProxyEnv,
        quiet: &Arc<Quiet>,
        reporter: &Reporter,
        metrics: &Metrics,
    ) -> Self {
        let concurrency = env.container_concurrency;
        Proxy {
            app: SocketAddr::from((Ipv4Addr::LOCALHOST, env.user_port)),
            upstreams: Upstreams::new(UpstreamParams {
                max_idle_per_host: if concurrency == 0 { 1000 } else { concurrency as usize },
                idle_timeout: Duration::from_secs(90),
                connect_timeout: Duration::from_secs(20),
            }),
            timeouts: Timeouts {
                total: env.timeout,
                response_start: env.response_start_timeout,
                idle: env.idle_timeout,
            },
            breaker: (concurrency > 0)
                .then(|| Breaker::new(concurrency, concurrency as usize * QUEUED_PER_RUNNING)),
            body_bytes: ByteBudget::new(MAX_BODY_BYTES),
            readiness: Arc::new(Readiness::new(&env.readiness)),
            quiet: Arc::clone(quiet),
            reporter: reporter.clone(),
            metrics: metrics.clone(),
            request_log: RequestLog::start(env).map(Arc::new),
        }
    }
}

fn kind(headers: &HeaderMap, marks: Marks) -> RequestKind {
    let proxied = marks.any(Marks::PROXY_REQUEST)
        && headers.get(headers::PROXY_REQUEST).is_some_and(|by| by == headers::ACTIVATOR);
    if proxied { RequestKind::Proxied } else { RequestKind::Direct }
}

/// A mesh between the client and us may have put its own name into `Host`.
fn restore_original_host(headers: &mut HeaderMap) {
    if let Some(host) = headers.remove(headers::ORIGINAL_HOST)
        && !host.is_empty()
    {
        headers.insert(HOST, host);
    }
}

fn shutting_down() -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down")
}

/// How the user agents begin of those who may ask whether the app is ready.
const PROBERS: [&str; 3] =
    [headers::KUBELET_USER_AGENT, headers::ACTIVATOR_USER_AGENT, headers::AUTOSCALER_USER_AGENT];

/// Knative's queue: ten requests may wait for each that may run.
const QUEUED_PER_RUNNING: usize = 10;

/// What all waiting requests together may keep in memory of their bodies.
const MAX_BODY_BYTES: usize = 16 << 20;
