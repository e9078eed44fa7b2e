//! The queue-proxy's settings, all of them checked before a port is opened.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pilotlight_config::process::QueueProxyEnv;
use pilotlight_net::Request;
use pilotlight_net::tls::{CertificateFiles, ServerTls, TlsPolicy, TlsWords};
use pilotlight_process::{WrongSettings, chain};
use pilotlight_telemetry::{RevisionNames, Telemetry, TelemetryParams, TraceError, prometheus_tls};

use crate::metrics::Metrics;

/// Settings that are legal, with the certificates they name.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) env: QueueProxyEnv,
    pub(crate) admin: SocketAddr,
    /// The certificate; `None`: there is none, and no TLS then.
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// `None`: no metrics are asked for.
    pub(crate) metrics: Option<(Metrics, MetricsPlace)>,
    pub(crate) telemetry: Telemetry,
}

/// The port for Prometheus.
#[derive(Debug)]
pub(crate) struct MetricsPlace {
    pub(crate) address: SocketAddr,
    /// `None`: in the clear.
    pub(crate) tls: Option<Arc<ServerTls>>,
}

impl Settings {
    /// Reads the certificates and checks everything; all that is wrong at once. On a runtime: traces begin to be sent as
    /// soon as there are any.
    pub(crate) fn check(env: QueueProxyEnv, admin: Option<SocketAddr>) -> Result<Settings, WrongSettings> {
        let mut wrong = WrongSettings::default();
        let tls = wrong.check(tls(&env)).flatten();
        let metrics = Metrics::start(&env);
        let place = metrics.as_ref().and_then(|_| wrong.check(metrics_place(&env)));
        let telemetry = wrong.check(telemetry(&env, metrics.as_ref()));
        let admin = admin.unwrap_or(SocketAddr::new(env.bind_address, env.admin_port));
        wrong
            .finish(|| Some(Settings { admin, tls, metrics: metrics.zip(place), telemetry: telemetry?, env }))
    }

    /// The settings in force, for `--check-config`.
    pub(crate) fn in_force(&self) -> Vec<String> {
        let Settings { env, admin, tls, metrics, .. } = self;
        let over_tls =
            tls.as_ref().map_or("no TLS".to_owned(), |_| format!("TLS on port {}", env.serving_tls_port));
        let limit = match env.container_concurrency.get() {
            None => "no limit of requests at once".to_owned(),
            Some(limit) => format!("at most {limit} requests at once"),
        };
        let metrics = metrics.as_ref().map_or("none".to_owned(), |(_, place)| place.address.to_string());
        vec![
            format!(
                "requests: {}:{} ({over_tls}) to the app on port {}, {limit}",
                env.bind_address, env.serving_port, env.user_port
            ),
            format!("stats: port {}, admin port: {admin}, metrics: {metrics}", env.metrics_port),
        ]
    }
}

/// Attributes that all of this pod's spans and series have in common, by OpenTelemetry's names.
pub(crate) fn resource(env: &QueueProxyEnv) -> Vec<(&'static str, String)> {
    let named = env.telemetry.service_name.as_ref();
    let candidates =
        [named, Some(&env.service), Some(&env.configuration), Some(&env.revision), Some(&env.pod)];
    let service = candidates.into_iter().flatten().find(|name| !name.is_empty()).cloned().unwrap_or_default();
    let resource = [
        ("service.name", service),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", env.pod.clone()),
        ("container.name", "queue-proxy".to_owned()),
        ("k8s.namespace.name", env.namespace.clone()),
        ("k8s.pod.name", env.pod.clone()),
        ("kn.service.name", env.service.clone()),
        ("kn.configuration.name", env.configuration.clone()),
        ("kn.revision.name", env.revision.clone()),
    ];
    resource.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn tls(env: &QueueProxyEnv) -> Result<Option<Arc<ServerTls>>, String> {
    let cannot = |error: &(dyn std::error::Error + 'static)| format!("cannot serve TLS: {}", chain(error));
    let files = CertificateFiles::in_folder(&env.cert_dir);
    if !files.exist().map_err(|error| cannot(&error))? {
        return Ok(None);
    }
    let policy = TlsPolicy::parse(TlsWords {
        min_version: &env.tls.min_version,
        max_version: &env.tls.max_version,
        cipher_suites: &env.tls.cipher_suites,
        curve_preferences: &env.tls.curve_preferences,
    })
    .map_err(|error| format!("QUEUE_PROXY_{error}"))?;
    ServerTls::load(files, policy).map(|tls| Some(Arc::new(tls))).map_err(|error| cannot(&error))
}

fn metrics_place(env: &QueueProxyEnv) -> Result<MetricsPlace, String> {
    let asked = &env.telemetry.prometheus;
    let host: IpAddr = match &asked.host {
        Some(host) => {
            host.parse().map_err(|_| format!("cannot serve metrics at `{host}`: it is not an IP address"))?
        }
        None => env.bind_address,
    };
    let tls = asked.tls.as_ref().map(prometheus_tls).transpose().map_err(|error| chain(&error))?;
    Ok(MetricsPlace { address: SocketAddr::new(host, asked.port.unwrap_or(env.user_metrics_port)), tls })
}

fn telemetry(env: &QueueProxyEnv, metrics: Option<&Metrics>) -> Result<Telemetry, TraceError> {
    Telemetry::start(TelemetryParams {
        env: &env.telemetry,
        scope: "knative.dev/serving/pkg/queue",
        resource: &resource(env),
        revision: RevisionNames {
            name: env.revision.clone(),
            namespace: env.namespace.clone(),
            service: env.service.clone(),
            configuration: env.configuration.clone(),
            pod_name: env.pod.clone(),
            pod_ip: env.pod_ip.clone(),
        },
        sending_span: |request: &Request| format!("HTTP {}", request.method()),
        registry: metrics.map(|metrics| metrics.registry().clone()),
        names_upstreams: true,
        changes_log: false,
    })
}
