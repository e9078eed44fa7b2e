//! `OBSERVABILITY_CONFIG`: metrics, traces and log of a proxy's requests. JSON whose keys are all optional; a missing
//! one keeps its default.

use serde::Deserialize;

/// Metrics, traces and log of a proxy's requests.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Observability {
    /// Traces of requests.
    pub tracing: TracingConfig,
    /// How requests are counted for users.
    pub request_metrics: RequestMetricsConfig,
    /// Whether each request is a line on standard output.
    pub enable_request_log: bool,
    /// The line, as a Go template; empty: none.
    pub request_log_template: String,
    /// Whether probes are requests in that sense.
    pub enable_probe_request_log: bool,
}

/// Traces of requests.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TracingConfig {
    /// Protocol they are sent with, if at all.
    pub protocol: TraceProtocol,
    /// Receiver, as `host:port` or a URL.
    pub endpoint: String,
    /// The share of requests that are traced, 0 to 1.
    #[serde(rename = "samplingRate")]
    pub sampled_fraction: f64,
}

/// How traces are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum TraceProtocol {
    /// Not at all.
    #[default]
    #[serde(rename = "none", alias = "")]
    None,
    /// OTLP over gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP over HTTP/1.1.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// Each span as a line of JSON on standard output.
    #[serde(rename = "stdout")]
    Stdout,
}

/// How requests are counted for users.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestMetricsConfig {
    /// Protocol of the numbers, if there are any.
    pub protocol: MetricsProtocol,
    /// Address to listen at, as `host:port`; empty: the usual one.
    pub endpoint: String,
}

/// How numbers are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum MetricsProtocol {
    /// Not at all.
    #[default]
    #[serde(rename = "none", alias = "")]
    None,
    /// A page for Prometheus.
    #[serde(rename = "prometheus")]
    Prometheus,
    /// OTLP, over gRPC or over HTTP/1.1: understood, and not implemented.
    #[serde(rename = "grpc", alias = "http/protobuf")]
    Otlp,
}

impl Default for Observability {
    fn default() -> Self {
        Observability {
            tracing: TracingConfig::default(),
            request_metrics: RequestMetricsConfig::default(),
            enable_request_log: false,
            request_log_template: DEFAULT_TEMPLATE.to_owned(),
            enable_probe_request_log: false,
        }
    }
}

impl Default for TracingConfig {
    fn default() -> Self {
        TracingConfig { protocol: TraceProtocol::None, endpoint: String::new(), sampled_fraction: 0.1 }
    }
}

/// Reads the JSON, or says which rule it breaks.
pub(super) fn parse(text: &str) -> Result<Observability, String> {
    serde_json::from_str(text).map_err(|error| format!("is not an observability configuration: {error}"))
}

/// One JSON object a request, in the form that log collectors of Google's cloud know.
const DEFAULT_TEMPLATE: &str = concat!(
    r#"{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", "#,
    r#""requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "#,
    r#""responseSize": "{{.Response.Size}}", "userAgent": "{{js .Request.UserAgent}}", "#,
    r#""remoteIp": "{{js .Request.RemoteAddr}}", "serverIp": "{{.Revision.PodIP}}", "#,
    r#""referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", "#,
    r#""protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}"#,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_keeps_its_default() {
        let parsed =
            parse(r#"{"enableRequestLog":true,"requestMetrics":{"protocol":"prometheus"}}"#).unwrap();
        let expected = Observability {
            enable_request_log: true,
            request_metrics: RequestMetricsConfig {
                protocol: MetricsProtocol::Prometheus,
                ..RequestMetricsConfig::default()
            },
            ..Observability::default()
        };
        assert_eq!(parsed, expected);
    }

    #[test]
    fn everything_the_controller_writes_is_understood() {
        let text = r#"{"tracing":{"protocol":"grpc","endpoint":"otel:4317","samplingRate":0.5},
            "metrics":{"protocol":"none","endpoint":"","exportInterval":0},
            "runtime":{"profiling":"disabled","exportInterval":15000000000},
            "requestMetrics":{"protocol":"http/protobuf","endpoint":"http://otel","exportInterval":5000000000},
            "enableRequestLog":true,"requestLogTemplate":"x","enableProbeRequestLog":true,
            "EnableVarLogCollection":false,"LoggingURLTemplate":""}"#;
        let parsed = parse(text).unwrap();
        assert_eq!((parsed.tracing.sampled_fraction, parsed.tracing.protocol), (0.5, TraceProtocol::Grpc));
        assert_eq!(parsed.request_metrics.protocol, MetricsProtocol::Otlp);
        assert!(parsed.enable_probe_request_log && parsed.request_log_template == "x");
    }

    #[test]
    fn nonsense_is_refused() {
        for nonsense in ["{", r#"{"enableRequestLog":"yes"}"#, r#"{"tracing":{"protocol":"zipkin"}}"#] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }
}
