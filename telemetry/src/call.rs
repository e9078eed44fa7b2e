//! Metrics, spans and the log line of one request: [`Call`] from its arrival to the end of its response, and
//! [`Sending`] from when it is sent on.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};
use opentelemetry::KeyValue;
use pilotlight_net::headers::{DEFAULT_ROUTE, TAG};
use pilotlight_net::{Client, Ending, Error, Handler, Request, Response, SendError, is_probe};

use crate::http_metrics::{ClientKey, RevisionKey, ServerKey, method_label, split_authority};
use crate::names::RevisionNames;
use crate::request_log::{LoggedRequest, LoggedResponse, RequestLog};
use crate::sinks::Sinks;
use crate::traces::{Parent, Span};

/// A request from its arrival to the end of its response. Recorded when the response ends or when this is dropped,
/// whichever comes first.
pub struct Call(Box<State>);

struct State {
    sinks: Arc<Sinks>,
    arrived: Instant,
    logged: Option<(Arc<RequestLog>, LoggedRequest)>,
    key: Option<ServerKey>,
    span: Span,
    revision: Option<Arc<RevisionNames>>,
    read: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    answered: Option<StatusCode>,
}

/// Marks a request that came over TLS.
#[derive(Clone, Copy)]
struct Secure;

/// Facts about a request that [`Sending`] needs, carried in the request's extensions.
#[derive(Clone)]
struct Told {
    read: Arc<AtomicU64>,
    tag: Cow<'static, str>,
    revision: Option<Arc<RevisionNames>>,
}

/// A handler whose requests come over TLS.
pub struct OverTls<H>(pub Arc<H>);

impl<H: Handler> Handler for OverTls<H> {
    async fn handle(&self, client: &Client, mut request: Request) -> Response {
        request.extensions_mut().insert(Secure);
        self.0.handle(client, request).await
    }
}

impl Call {
    pub(crate) fn begin(sinks: &Arc<Sinks>, peer: SocketAddr, request: &mut Request) -> Option<Call> {
        let log = sinks.log.current();
        let logged = log.and_then(|log| log.note(peer, request).map(|noted| (log, noted)));
        let is_counted = is_counted(request) && (sinks.metrics.is_some() || sinks.tracer.is_some());
        if logged.is_none() && !is_counted {
            return None;
        }
        let read = Arc::<AtomicU64>::default();
        let (mut key, mut span) = (None, Span::none());
        if is_counted {
            let tag = route_tag(request.headers());
            let is_secure = request.extensions().get::<Secure>().is_some();
            if let Some(tracer) = &sinks.tracer {
                span = tracer.arrived(span_name(request.method()), request.headers());
                span.describe(|| server_attributes(peer, request, is_secure, &tag));
                if let Some(parent) = span.as_parent() {
                    request.extensions_mut().insert(parent);
                }
            }
            if sinks.metrics.is_some() {
                key = Some(ServerKey {
                    method: method_label(request.method()),
                    is_secure,
                    host: request.headers().get(header::HOST).cloned(),
                    version: request.version(),
                    tag: tag.clone(),
                    revision: None,
                    status: None,
                });
            }
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = body.counted(Arc::clone(&read));
            let told = Told { read: Arc::clone(&read), tag, revision: None };
            request.extensions_mut().insert(told);
        }
        Some(Call(Box::new(State {
            sinks: Arc::clone(sinks),
            arrived: Instant::now(),
            logged,
            key,
            span,
            revision: None,
            read,
            written: Arc::default(),
            answered: None,
        })))
    }

    /// Notes the revision that the request is for, once it is known.
    pub fn about(&mut self, revision: &Arc<RevisionNames>, request: &mut Request) {
        let state = &mut *self.0;
        state.revision = Some(Arc::clone(revision));
        for (name, value) in [
            ("kn.service.name", &revision.service),
            ("kn.configuration.name", &revision.configuration),
            ("kn.revision.name", &revision.name),
            ("k8s.namespace.name", &revision.namespace),
        ] {
            if !value.is_empty() {
                state.span.note(name, value.clone());
            }
        }
        if let Some(told) = request.extensions_mut().get_mut::<Told>() {
            told.revision = Some(Arc::clone(revision));
        }
    }

    /// Watches the response that begins: its end is the end of the request. A response that breaks off counts as a 500,
    /// as in Knative.
    pub fn until_the_end_of(mut self, response: Response) -> Response {
        self.0.answered = Some(response.status());
        let written = Arc::clone(&self.0.written);
        response.map(|body| {
            body.counted(written).watched(move |ending| {
                if ending == Ending::Failed {
                    self.0.answered = Some(StatusCode::INTERNAL_SERVER_ERROR);
                    self.0.span.fail("the response broke off");
                }
            })
        })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let latency = self.arrived.elapsed();
        let (read, written) = (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed));
        if let Some(status) = self.answered {
            self.span.note("http.response.status_code", i64::from(status.as_u16()));
            if status.is_server_error() {
                self.span.note("error.type", status.as_str().to_owned());
                self.span.fail("");
            }
            self.span.note("http.request.body.size", saturated(read));
            self.span.note("http.response.body.size", saturated(written));
        } else {
            self.span.fail("the client left");
        }
        let revision = self.revision.take();
        if let (Some(metrics), Some(mut key)) = (&self.sinks.metrics, self.key.take()) {
            key.status = self.answered.map(|status| status.as_u16());
            key.revision = revision.as_ref().map(RevisionKey::of);
            metrics.served(key, latency, read, written);
        }
        if let (Some((log, request)), Some(status)) = (&self.logged, self.answered) {
            let response = LoggedResponse { status, bytes: written, latency };
            log.write(request, &response, revision.as_deref().unwrap_or(&self.sinks.revision));
        }
    }
}

/// A request that is sent on, until its response has begun; its span, until that has ended.
pub struct Sending(Box<SendingState>);

struct SendingState {
    sinks: Arc<Sinks>,
    began: Instant,
    key: Option<ClientKey>,
    read: Arc<AtomicU64>,
    span: Span,
}

impl Sending {
    pub(crate) fn begin(
        sinks: &Arc<Sinks>,
        parent: Option<Parent>,
        to: SocketAddr,
        request: &mut Request,
    ) -> Option<Sending> {
        let told = request.extensions().get::<Told>().cloned()?;
        let mut span = Span::none();
        let parent = parent.or_else(|| request.extensions().get().cloned());
        if let (Some(tracer), Some(parent)) = (&sinks.tracer, parent) {
            if parent.is_traced() {
                span = tracer.sending(&parent, (sinks.sending_span)(request));
                span.describe(|| client_attributes(to, request, &told.tag));
            }
            span.as_parent().unwrap_or(parent).write_to(request.headers_mut());
        }
        let key = sinks.metrics.is_some().then(|| ClientKey {
            method: method_label(request.method()),
            to: Some(to),
            version: request.version(),
            tag: told.tag,
            revision: told.revision.as_ref().map(RevisionKey::of),
            outcome: Err("cancelled"),
        });
        let state =
            SendingState { sinks: Arc::clone(sinks), began: Instant::now(), key, read: told.read, span };
        Some(Sending(Box::new(state)))
    }

    /// Records that the response has begun, or that there will be none.
    pub fn answered(mut self, outcome: Result<Response, SendError>) -> Result<Response, SendError> {
        let state = &mut *self.0;
        match outcome {
            Ok(response) => {
                state.record(Ok(response.status().as_u16()));
                state.span.note("http.response.status_code", i64::from(response.status().as_u16()));
                if response.status().as_u16() >= 400 {
                    state.span.note("error.type", response.status().as_str().to_owned());
                    state.span.fail("");
                }
                let span = std::mem::replace(&mut state.span, Span::none());
                Ok(response.map(|body| body.guarded(span)))
            }
            Err(failure) => {
                let kind = error_type(failure.error());
                state.record(Err(kind));
                state.span.note("error.type", kind);
                state.span.fail(failure.to_string());
                Err(failure)
            }
        }
    }
}

impl SendingState {
    fn record(&mut self, outcome: Result<u16, &'static str>) {
        if let (Some(metrics), Some(mut key)) = (&self.sinks.metrics, self.key.take()) {
            key.outcome = outcome;
            metrics.sent(key, self.began.elapsed(), self.read.load(Ordering::Relaxed));
        }
    }
}

impl Drop for SendingState {
    fn drop(&mut self) {
        self.record(Err("cancelled"));
    }
}

/// The traffic target that the request is for: Knative's `kn.route.tag`.
fn route_tag(headers: &HeaderMap) -> Cow<'static, str> {
    let text = |name: &HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let tag = text(&TAG).filter(|tag| !tag.is_empty());
    let default = text(&DEFAULT_ROUTE).filter(|default| !default.is_empty());
    match (tag, default) {
        (None, None) => "kn:disabled".into(),
        (None, Some(_)) => "kn:default".into(),
        (Some(_), Some(default)) if default == "true" => "kn:undefined".into(),
        (Some(tag), _) => tag.into_owned().into(),
    }
}

/// Whether metrics and traces count a request: probes are left out.
fn is_counted(request: &Request) -> bool {
    !is_probe(request.headers())
}

fn span_name(method: &Method) -> Cow<'static, str> {
    match method_label(method) {
        "_OTHER" => method.to_string().into(),
        known => known.into(),
    }
}

/// A failure as one of a few words, for the label `error_type`.
fn error_type(error: &Error) -> &'static str {
    match error {
        Error::Connect { .. } => "connect",
        Error::ConnectTimeout { .. } => "connect_timeout",
        Error::Handshake(_) => "tls",
        Error::UpstreamClosed => "closed",
        Error::Downstream(_) => "client_left",
        Error::TimedOut(_) => "timeout",
        _ => "_OTHER",
    }
}

fn server_attributes(peer: SocketAddr, request: &Request, is_secure: bool, tag: &str) -> Vec<KeyValue> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (host, port) =
        split_authority(text(header::HOST).unwrap_or_default(), if is_secure { 443 } else { 80 });
    let mut attributes = vec![
        KeyValue::new("http.request.method", method_label(request.method())),
        KeyValue::new("url.scheme", if is_secure { "https" } else { "http" }),
        KeyValue::new("url.path", request.uri().path().to_owned()),
        KeyValue::new("server.address", host.to_owned()),
        KeyValue::new("network.peer.address", peer.ip().to_string()),
        KeyValue::new("network.peer.port", i64::from(peer.port())),
        KeyValue::new("network.protocol.version", protocol_version(request.version())),
        KeyValue::new("kn.route.tag", tag.to_owned()),
    ];
    attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
    if let Some(agent) = text(header::USER_AGENT) {
        attributes.push(KeyValue::new("user_agent.original", agent.to_owned()));
    }
    if let Some(client) = text(pilotlight_net::headers::X_FORWARDED_FOR).and_then(|all| all.split(',').next())
    {
        attributes.push(KeyValue::new("client.address", client.trim().to_owned()));
    }
    attributes
}

fn client_attributes(to: SocketAddr, request: &Request, tag: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("http.request.method", method_label(request.method())),
        KeyValue::new("url.full", format!("http://{to}{}", request.uri().path())),
        KeyValue::new("server.address", to.ip().to_string()),
        KeyValue::new("server.port", i64::from(to.port())),
        KeyValue::new("network.protocol.version", protocol_version(request.version())),
        KeyValue::new("kn.route.tag", tag.to_owned()),
    ]
}

fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

fn saturated(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_route_tag_is_knatives() {
        for (tag, default, expected) in [
            (None, None, "kn:disabled"),
            (None, Some("true"), "kn:default"),
            (None, Some("false"), "kn:default"),
            (Some("test"), Some("true"), "kn:undefined"),
            (Some("test"), Some("false"), "test"),
            (Some("test"), None, "test"),
        ] {
            let mut headers = HeaderMap::new();
            tag.map(|tag| headers.insert(TAG, HeaderValue::from_static(tag)));
            default.map(|default| headers.insert(DEFAULT_ROUTE, HeaderValue::from_static(default)));
            assert_eq!(route_tag(&headers), expected);
        }
    }
}
