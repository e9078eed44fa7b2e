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
    Body, Breaker, ByteBudget, Client, Error, Fault, Handler, Request, Response, SendError, Timeouts,
    UpstreamParams, Upstreams, hold_while, mark_unsent, message, plain, prepare_forward, prepare_response,
    with_timeouts,
};
use pilotlight_telemetry::Telemetry;
use tracing::debug;

use crate::forwarded::add_forwarded;
use crate::metrics::Metrics;
use crate::quiet::Quiet;
use crate::readiness::Readiness;
use crate::report::Reporter;

/// The handler of the port for requests: takes them to the app.
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
    // None: no metrics were asked for.
    metrics: Option<Metrics>,
    telemetry: Telemetry,
}

impl Handler for Proxy {
    async fn handle(&self, client: &Client, mut request: Request) -> Response {
        let told = self.telemetry.begin(client.address(), &mut request);
        let marks = Marks::of(request.headers());
        let answer = if marks.any(Marks::PROBE) { self.answer_probe(request.headers()).await } else { None };
        let response = match answer {
            Some(answer) => answer,
            None => {
                self.quiet.request_arrived();
                // Pinned here: a future handed over by value is in memory twice, as an argument and to be polled.
                let call = pin!(self.proxy(client, &mut request, marks));
                with_timeouts(client, self.timeouts, "request timeout", call).await
            }
        };
        match told {
            Some(told) => told.until_the_end_of(response),
            None => response,
        }
    }
}

impl Proxy {
    /// Proxies a request that is not a probe for the queue-proxy. The time it waits for its turn counts as load and
    /// against its timeouts.
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
        let proxying = self.telemetry.enter(request, "kn.queueproxy.proxy");
        let permit = match &self.breaker {
            None => None,
            Some(breaker) => {
                let _waiting = self.telemetry.span(request, "kn.queueproxy.wait");
                match hold_while(request, &self.body_bytes, breaker.acquire()).await {
                    Ok(Ok(permit)) => Some(permit),
                    Ok(Err(_)) => return queue_full(),
                    Err(no_room @ Error::NoRoom) => return message::respond(&no_room),
                    Err(left) => return with_reason(message::respond(&left), headers::CLIENT_FAILED),
                }
            }
        };
        let is_probe = marks.any(Marks::PROBE) && is_probe(request.headers());
        let metrics = self.metrics.as_ref().filter(|_| !is_probe);
        let invocation = metrics.map(Metrics::invocation_started);
        let response = self.forward(client, request, marks).await;
        let status = response.status();
        response.map(|body| {
            body.watched(move |ending| {
                // The count and the permit end with the last byte of the response, not with the first: Knative's
                // breaker releases at the same point (pkg/queue/handler.go).
                drop((counted, permit, proxying));
                if let Some(invocation) = invocation {
                    invocation.ended(status, ending);
                }
            })
        })
    }

    /// The limit of requests at once; `None`: there is none.
    pub(crate) fn breaker(&self) -> Option<Breaker> {
        self.breaker.clone()
    }

    async fn forward(&self, client: &Client, request: &mut Request, marks: Marks) -> Response {
        prepare_forward(request, client, marks);
        let sending = self.telemetry.sending(self.app, request);
        let mut outcome = self.upstreams.send(client, self.app, request).await;
        if let Some(sending) = sending {
            outcome = sending.answered(outcome);
        }
        match outcome {
            Ok(mut response) => {
                prepare_response(&mut response);
                if response.status().is_server_error() {
                    // A reason set by an app that is a gateway itself is not ours.
                    response.headers_mut().remove(headers::REASON);
                }
                response
            }
            Err(failure) => {
                debug!(error = %failure, "Cannot forward a request to the app");
                let reason = match failure.error().fault() {
                    Fault::Upstream if matches!(failure, SendError::Replayable { .. }) => headers::APP_CLOSED,
                    Fault::Upstream => headers::APP_FAILED,
                    Fault::Downstream => headers::CLIENT_FAILED,
                };
                let mut response = with_reason(message::respond(failure.error()), reason);
                // The sign is for an activator, which has other pods; whoever else asks is answered as by Knative.
                if matches!(failure, SendError::NotSent { .. })
                    && kind(request.headers(), marks) == RequestKind::Proxied
                {
                    mark_unsent(&mut response);
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
                with_reason(message::empty(StatusCode::SERVICE_UNAVAILABLE), "not-ready")
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
        metrics: Option<&Metrics>,
        telemetry: &Telemetry,
    ) -> Self {
        let limit = env.container_concurrency;
        Proxy {
            app: SocketAddr::from((Ipv4Addr::LOCALHOST, env.user_port)),
            upstreams: Upstreams::to_apps(UpstreamParams {
                max_idle_per_host: limit.get().map_or(1000, |limit| limit as usize),
                idle_timeout: Duration::from_secs(90),
                connect_timeout: Duration::from_secs(20),
            })
            // The app is on the same machine and cannot vanish, and gRPC servers end connections that ping them more often
            // than every five minutes.
            .pinging(None),
            timeouts: env.timeouts,
            breaker: limit.get().zip(limit.queue_depth()).map(|(limit, queue)| Breaker::new(limit, queue)),
            body_bytes: ByteBudget::new(env.max_queued_bytes),
            readiness: Arc::new(Readiness::new(&env.readiness, env.http2_auto_detection)),
            quiet: Arc::clone(quiet),
            reporter: reporter.clone(),
            metrics: metrics.cloned(),
            telemetry: telemetry.clone(),
        }
    }
}

fn kind(headers: &HeaderMap, marks: Marks) -> RequestKind {
    let proxied = marks.any(Marks::PROXY_REQUEST)
        && headers.get(headers::PROXY_REQUEST).is_some_and(|by| by == headers::ACTIVATOR);
    if proxied { RequestKind::Proxied } else { RequestKind::Direct }
}

/// Restores the client's `Host`: a mesh in front of the pod may have put its own name there.
fn restore_original_host(headers: &mut HeaderMap) {
    if let Some(host) = headers.remove(headers::ORIGINAL_HOST)
        && !host.is_empty()
    {
        headers.insert(HOST, host);
    }
}

fn shutting_down() -> Response {
    with_reason(plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down"), "shutting-down")
}

fn queue_full() -> Response {
    with_reason(plain(StatusCode::SERVICE_UNAVAILABLE, "pending request queue full"), "queue-full")
}

/// Marks a response as the queue-proxy's own, with its reason, so that machines do not take it for the app's.
fn with_reason(mut response: Response, reason: &'static str) -> Response {
    response.headers_mut().insert(headers::REASON, HeaderValue::from_static(reason));
    response
}

/// First words of the user agents that may ask whether the app is ready.
const PROBERS: [&str; 3] =
    [headers::KUBELET_USER_AGENT, headers::ACTIVATOR_USER_AGENT, headers::AUTOSCALER_USER_AGENT];
