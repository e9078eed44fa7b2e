//! Whom this pod's metrics and traces are for, and what they say it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pilotlight_config::process::QueueProxyEnv;
use pilotlight_net::Request;
use pilotlight_net::tls::ServerTls;
use pilotlight_telemetry::{RevisionNames, Telemetry, TelemetryParams, TraceError, prometheus_tls};
use tokio::net::TcpListener;

use crate::StartError;
use crate::metrics::Metrics;

/// Begins to tell of requests what the operator asked for.
pub(crate) fn start(env: &QueueProxyEnv, metrics: Option<&Metrics>) -> Result<Telemetry, TraceError> {
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
        histograms: metrics.map(Metrics::histograms),
        names_upstreams: true,
    })
}

/// What all of this pod's spans and series have in common, under OpenTelemetry's names.
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

/// Opens the port for Prometheus, and reads the certificate to show there, if there is to be one.
pub(crate) async fn listen(env: &QueueProxyEnv) -> Result<(TcpListener, Option<Arc<ServerTls>>), StartError> {
    let asked = &env.telemetry.prometheus;
    let host: IpAddr = match &asked.host {
        Some(host) => host.parse().map_err(|_| StartError::PrometheusHost(host.clone()))?,
        None => env.bind_address,
    };
    let tls = match &asked.tls {
        Some(tls) => Some(prometheus_tls(tls, env.cert_poll_interval)?),
        None => None,
    };
    let address = SocketAddr::new(host, asked.port.unwrap_or(env.user_metrics_port));
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(|source| StartError::Bind { address, purpose: "metrics", source })?;
    Ok((listener, tls))
}
