//! OpenTelemetry's metrics of HTTP requests, under the names Prometheus gives them.
//!
//! Clients choose the host they ask for, so the number of series has a limit; what is beyond it is counted in one
//! that says so.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderValue, Method, Version};
use metrics::{Histogram, Label};
use parking_lot::Mutex;

use crate::names::RevisionNames;
use crate::registry::Registry;

/// The histograms of requests.
pub(crate) struct HttpMetrics {
    registry: Registry,
    names_upstreams: bool,
    server: Mutex<KnownHistograms<ServerKey, 3>>,
    client: Mutex<KnownHistograms<ClientKey, 2>>,
}

/// The histograms of the keys seen so far, and of all those beyond the limit.
struct KnownHistograms<K, const N: usize> {
    by_key: HashMap<K, [Histogram; N]>,
    overflow: Option<[Histogram; N]>,
}

/// The revision of a request, by identity: it is gone when nobody else holds its names.
#[derive(Clone, Debug)]
pub(crate) struct RevisionKey(Weak<RevisionNames>);

/// Labels of a request that was served.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServerKey {
    pub(crate) method: &'static str,
    pub(crate) is_secure: bool,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) version: Version,
    pub(crate) tag: Cow<'static, str>,
    pub(crate) revision: Option<RevisionKey>,
    // None: the client left first.
    pub(crate) status: Option<u16>,
}

/// Labels of a request that was sent on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey {
    pub(crate) method: &'static str,
    pub(crate) to: Option<SocketAddr>,
    pub(crate) version: Version,
    pub(crate) tag: Cow<'static, str>,
    pub(crate) revision: Option<RevisionKey>,
    pub(crate) outcome: Result<u16, &'static str>,
}

impl HttpMetrics {
    pub(crate) fn new(registry: Registry, names_upstreams: bool) -> Self {
        HttpMetrics { registry, names_upstreams, server: Mutex::default(), client: Mutex::default() }
    }

    /// Records a request that was served: how long that took, and how many bytes it and its response had.
    pub(crate) fn served(&self, key: ServerKey, took: Duration, read: u64, written: u64) {
        let [duration, request_bytes, response_bytes] = self.server.lock().of(key, &self.registry, SERVER);
        duration.record(took);
        request_bytes.record(read as f64);
        response_bytes.record(written as f64);
    }

    /// Records a request that was sent on: how long it took until the response began, and how many of its bytes had
    /// gone by then.
    pub(crate) fn sent(&self, mut key: ClientKey, took: Duration, read: u64) {
        if !self.names_upstreams {
            key.to = None;
        }
        let [duration, request_bytes] = self.client.lock().of(key, &self.registry, CLIENT);
        duration.record(took);
        request_bytes.record(read as f64);
    }

    /// Drops the series of revisions that are gone.
    pub(crate) fn forget_gone_revisions(&self) {
        self.server.lock().by_key.retain(|key, _| !key.is_gone());
        self.client.lock().by_key.retain(|key, _| !key.is_gone());
    }
}

impl<K: SeriesKey, const N: usize> KnownHistograms<K, N> {
    /// The histograms of a key, made when it is seen first.
    fn of(&mut self, key: K, registry: &Registry, names: [&'static str; N]) -> [Histogram; N] {
        if let Some(histograms) = self.by_key.get(&key) {
            return histograms.clone();
        }
        let make = |labels: Vec<Label>| names.map(|name| registry.histogram(name, &labels));
        if self.by_key.len() >= MAX_SERIES {
            self.by_key.retain(|key, _| !key.is_gone());
        }
        if self.by_key.len() >= MAX_SERIES {
            return self.overflow.get_or_insert_with(|| make(overflow())).clone();
        }
        let histograms = make(key.labels());
        self.by_key.insert(key, histograms.clone());
        histograms
    }
}

impl<K, const N: usize> Default for KnownHistograms<K, N> {
    fn default() -> Self {
        KnownHistograms { by_key: HashMap::new(), overflow: None }
    }
}

impl RevisionKey {
    pub(crate) fn of(names: &Arc<RevisionNames>) -> Self {
        RevisionKey(Arc::downgrade(names))
    }

    fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }

    fn labels(&self) -> Vec<Label> {
        self.0.upgrade().iter().flat_map(|names| revision_labels(names)).collect()
    }
}

// By address, which is not used again while the `Weak` is there.
impl PartialEq for RevisionKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Eq for RevisionKey {}

impl Hash for RevisionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}

/// A key of requests' histograms.
trait SeriesKey: Eq + Hash {
    fn labels(&self) -> Vec<Label>;
    fn revision(&self) -> Option<&RevisionKey>;

    fn is_gone(&self) -> bool {
        self.revision().is_some_and(RevisionKey::is_gone)
    }
}

impl SeriesKey for ServerKey {
    fn revision(&self) -> Option<&RevisionKey> {
        self.revision.as_ref()
    }

    fn labels(&self) -> Vec<Label> {
        let scheme = if self.is_secure { "https" } else { "http" };
        let mut labels = vec![
            Label::from_static_parts("otel_scope_name", SCOPE),
            Label::from_static_parts("http_request_method", self.method),
            Label::from_static_parts("url_scheme", scheme),
        ];
        let authority = self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (host, port) = split_authority(authority, if self.is_secure { 443 } else { 80 });
        labels.push(Label::new("server_address", host.to_owned()));
        labels.extend(port.map(|port| Label::new("server_port", port.to_string())));
        labels.extend(protocol(self.version));
        match self.status {
            Some(status) => labels.push(Label::new("http_response_status_code", status.to_string())),
            None => labels.push(Label::from_static_parts("error_type", "client_left")),
        }
        labels.push(Label::new("kn_route_tag", self.tag.clone()));
        labels.extend(self.revision.iter().flat_map(RevisionKey::labels));
        labels
    }
}

impl SeriesKey for ClientKey {
    fn revision(&self) -> Option<&RevisionKey> {
        self.revision.as_ref()
    }

    fn labels(&self) -> Vec<Label> {
        let mut labels = vec![
            Label::from_static_parts("otel_scope_name", SCOPE),
            Label::from_static_parts("http_request_method", self.method),
            Label::from_static_parts("url_scheme", "http"),
        ];
        if let Some(to) = self.to {
            labels.push(Label::new("server_address", to.ip().to_string()));
            labels.push(Label::new("server_port", to.port().to_string()));
        }
        labels.extend(protocol(self.version));
        match self.outcome {
            Ok(status) => labels.push(Label::new("http_response_status_code", status.to_string())),
            Err(error) => labels.push(Label::from_static_parts("error_type", error)),
        }
        labels.push(Label::new("kn_route_tag", self.tag.clone()));
        labels.extend(self.revision.iter().flat_map(RevisionKey::labels));
        labels
    }
}

/// The names of a revision that are known, under OpenTelemetry's names.
fn revision_labels(revision: &RevisionNames) -> impl Iterator<Item = Label> {
    let named = [
        ("kn_service_name", &revision.service),
        ("kn_configuration_name", &revision.configuration),
        ("kn_revision_name", &revision.name),
        ("k8s_namespace_name", &revision.namespace),
    ];
    named
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| Label::new(name, value.clone()))
}

fn protocol(version: Version) -> [Label; 2] {
    let number = match version {
        Version::HTTP_2 => "2.0",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    [
        Label::from_static_parts("network_protocol_name", "http"),
        Label::from_static_parts("network_protocol_version", number),
    ]
}

fn overflow() -> Vec<Label> {
    vec![
        Label::from_static_parts("otel_scope_name", SCOPE),
        Label::from_static_parts("otel_metric_overflow", "true"),
    ]
}

/// Host and port of an authority; no port if it is the usual one of the scheme.
pub(crate) fn split_authority(authority: &str, usual: u16) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, port.filter(|port| *port != usual))
}

/// The method as a label: clients can make methods up, so all but the known ones share one.
pub(crate) fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "PATCH", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

/// Durations of requests by method and status, with the labels of their owner: [`NAME`](RequestDurations::NAME),
/// where the operator has not asked for all of them.
#[derive(Debug)]
pub struct RequestDurations {
    labels: Vec<Label>,
    histograms: BTreeMap<(&'static str, u16), Histogram>,
}

impl RequestDurations {
    /// The name of the series.
    pub const NAME: &str = SERVER[0];

    /// Durations with these labels in front, recorded by the recorder in force.
    pub fn new(labels: Vec<Label>) -> Self {
        RequestDurations { labels, histograms: BTreeMap::new() }
    }

    /// Records a request that was answered with `status`.
    #[expect(clippy::disallowed_macros, reason = "this is a file of metrics")]
    pub fn record(&mut self, method: &Method, status: u16, took: Duration) {
        let method = method_label(method);
        let histogram = self.histograms.entry((method, status)).or_insert_with(|| {
            let mut labels = self.labels.clone();
            labels.push(Label::from_static_parts("http_request_method", method));
            labels.push(Label::new("http_response_status_code", status.to_string()));
            metrics::histogram!(Self::NAME, labels)
        });
        histogram.record(took);
    }
}

const SERVER: [&str; 3] = [
    "http_server_request_duration_seconds",
    "http_server_request_body_size_bytes",
    "http_server_response_body_size_bytes",
];
const CLIENT: [&str; 2] = ["http_client_request_duration_seconds", "http_client_request_body_size_bytes"];
/// OpenTelemetry's name for the source of these series, which dashboards for Knative select by.
const SCOPE: &str = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp";
/// Most keys that have histograms of their own. OpenTelemetry's own limit is of this size.
const MAX_SERIES: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(names_upstreams: bool, work: impl FnOnce(&HttpMetrics)) -> String {
        let registry = Registry::new();
        let metrics = HttpMetrics::new(registry.clone(), names_upstreams);
        work(&metrics);
        registry.render()
    }

    fn key(host: &str, status: Option<u16>) -> ServerKey {
        ServerKey {
            method: "GET",
            is_secure: false,
            host: Some(HeaderValue::try_from(host).unwrap()),
            version: Version::HTTP_2,
            tag: "kn:disabled".into(),
            revision: None,
            status,
        }
    }

    #[test]
    fn a_served_request_is_in_its_buckets_with_its_labels() {
        let text = recorded(true, |metrics| {
            metrics.served(key("a.example:8080", Some(201)), Duration::from_millis(20), 7, 300);
        });
        let labels = concat!(
            r#"otel_scope_name="go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp","#,
            r#"http_request_method="GET",url_scheme="http",server_address="a.example",server_port="8080","#,
            r#"network_protocol_name="http",network_protocol_version="2.0",http_response_status_code="201","#,
            r#"kn_route_tag="kn:disabled""#
        );
        for line in [
            format!(r#"http_server_request_duration_seconds_bucket{{{labels},le="0.01"}} 0"#),
            format!(r#"http_server_request_duration_seconds_bucket{{{labels},le="0.025"}} 1"#),
            format!(r#"http_server_request_body_size_bytes_bucket{{{labels},le="5"}} 0"#),
            format!(r#"http_server_request_body_size_bytes_bucket{{{labels},le="10"}} 1"#),
            format!(r#"http_server_response_body_size_bytes_bucket{{{labels},le="500"}} 1"#),
            format!(r#"http_server_response_body_size_bytes_sum{{{labels}}} 300"#),
        ] {
            assert!(text.contains(&line), "{line}\nin\n{text}");
        }
    }

    #[test]
    fn who_invents_hosts_fills_one_series_in_the_end() {
        let text = recorded(true, |metrics| {
            for number in 0..MAX_SERIES + 5 {
                metrics.served(key(&format!("h{number}"), None), Duration::ZERO, 0, 0);
            }
        });
        assert_eq!(text.matches("http_server_request_duration_seconds_count{").count(), MAX_SERIES + 1);
        assert!(text.lines().any(|line| line.contains(r#"_count{"#)
            && line.contains(r#"otel_metric_overflow="true""#)
            && line.ends_with(" 5")));
    }

    #[test]
    fn of_two_thousand_revisions_that_came_and_went_those_that_live_are_told() {
        let registry = Registry::new();
        let metrics = HttpMetrics::new(registry.clone(), false);
        let mut alive = Vec::new();
        for number in 0..MAX_SERIES + 100 {
            let names = RevisionNames { name: format!("r{number}"), ..RevisionNames::default() };
            alive.push(Arc::new(names));
            let revision = alive.last().map(RevisionKey::of);
            metrics.served(ServerKey { revision, ..key("h", Some(200)) }, Duration::ZERO, 0, 0);
            if alive.len() > 100 {
                alive.remove(0);
            }
        }
        metrics.forget_gone_revisions();
        let page = registry.render();
        assert_eq!(page.matches("http_server_request_duration_seconds_count{").count(), 100);
        assert!(!page.contains("overflow"), "the gone leave their places to the new");
    }

    #[test]
    fn durations_of_a_kind_are_told_by_method_and_status() {
        let registry = Registry::new();
        let mut durations = RequestDurations::new(vec![Label::new("whose", "mine")]);
        metrics::with_local_recorder(&registry, || {
            durations.record(&Method::GET, 200, Duration::from_secs(1));
            durations.record(&Method::from_bytes(b"BREW").unwrap(), 418, Duration::ZERO);
        });
        let page = registry.render();
        for labels in [
            r#"whose="mine",http_request_method="GET",http_response_status_code="200""#,
            r#"whose="mine",http_request_method="_OTHER",http_response_status_code="418""#,
        ] {
            assert!(page.contains(&format!("{}_count{{{labels}}} 1\n", RequestDurations::NAME)), "{page}");
        }
    }

    #[test]
    fn upstreams_that_come_and_go_are_not_told_apart() {
        let sent = |number: u8| ClientKey {
            method: "GET",
            to: Some(SocketAddr::from(([10, 0, 0, number], 8012))),
            version: Version::HTTP_11,
            tag: "kn:disabled".into(),
            revision: None,
            outcome: Err("connect"),
        };
        let count = |names_upstreams| {
            let text = recorded(names_upstreams, |metrics| {
                metrics.sent(sent(1), Duration::ZERO, 0);
                metrics.sent(sent(2), Duration::ZERO, 0);
            });
            assert!(text.contains(r#"error_type="connect""#), "{text}");
            text.matches("http_client_request_duration_seconds_count{").count()
        };
        assert_eq!((count(true), count(false)), (2, 1));
    }

    #[test]
    fn authorities_are_split_and_usual_ports_left_out() {
        for (authority, expected) in [
            ("h", ("h", None)),
            ("h:80", ("h", None)),
            ("h:81", ("h", Some(81))),
            ("[::1]", ("::1", None)),
            ("[::1]:8080", ("::1", Some(8080))),
            ("", ("", None)),
        ] {
            assert_eq!(split_authority(authority, 80), expected, "{authority}");
        }
    }

    #[test]
    fn made_up_methods_share_one_label() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "_OTHER");
    }
}
