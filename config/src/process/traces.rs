//! The export of traces: Knative's settings, and OpenTelemetry's environment variables, which come first.

use std::path::PathBuf;
use std::time::Duration;

use super::EnvReader;
use super::observability::{TraceProtocol, TracingConfig};

/// The receiver of traces, and the share of requests that are traced.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceExport {
    /// The receiver.
    pub receiver: TraceReceiver,
    /// The choice of requests.
    pub sampling: Sampling,
}

/// A receiver of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceReceiver {
    /// Standard output.
    Stdout,
    /// A collector that takes OTLP.
    Otlp(OtlpEndpoint),
}

/// A collector that takes OTLP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint {
    /// gRPC, or HTTP/1.1.
    pub is_grpc: bool,
    /// Whether over TLS.
    pub is_secure: bool,
    /// Name or address of the collector.
    pub host: String,
    /// Port of the collector.
    pub port: u16,
    /// The path, for HTTP/1.1.
    pub path: String,
    /// Headers to send along.
    pub headers: Vec<(String, String)>,
    /// The authorities to trust, in PEM; `None`: the system's.
    pub certificate: Option<PathBuf>,
    /// Time limit of one attempt.
    pub timeout: Duration,
}

/// The choice of requests that are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The sampler that `OTEL_TRACES_SAMPLER` names.
    Environment,
    /// All from 1, none up to 0; in between this share of the requests that come without a trace, and those with one as
    /// its beginner decided.
    Fraction(f64),
}

impl TraceExport {
    /// Reads the variables that concern traces; `None`: no traces.
    pub(super) fn read<L: Fn(&str) -> Option<String>>(
        config: &TracingConfig,
        env: &mut EnvReader<L>,
    ) -> Option<TraceExport> {
        let receiver = match config.protocol {
            TraceProtocol::None => return None,
            TraceProtocol::Stdout => TraceReceiver::Stdout,
            TraceProtocol::Grpc => TraceReceiver::Otlp(read_endpoint(config, true, env)?),
            TraceProtocol::HttpProtobuf => TraceReceiver::Otlp(read_endpoint(config, false, env)?),
        };
        let fraction = env.optional("OTEL_TRACES_SAMPLER_ARG", share).unwrap_or(config.sampled_fraction);
        let sampler = env.optional("OTEL_TRACES_SAMPLER", |text| Ok(text.to_owned()));
        let sampling = if sampler.is_some() { Sampling::Environment } else { Sampling::Fraction(fraction) };
        Some(TraceExport { receiver, sampling })
    }
}

fn read_endpoint<L: Fn(&str) -> Option<String>>(
    config: &TracingConfig,
    is_grpc: bool,
    env: &mut EnvReader<L>,
) -> Option<OtlpEndpoint> {
    let parse = if is_grpc { grpc_endpoint } else { http_endpoint };
    let general = if is_grpc { grpc_endpoint } else { general_http_endpoint };
    let mut endpoint = if let Some(own) = env.optional("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", parse) {
        own
    } else if let Some(general) = env.optional("OTEL_EXPORTER_OTLP_ENDPOINT", general) {
        general
    } else if !config.endpoint.is_empty() {
        env.parse("OBSERVABILITY_CONFIG", config.endpoint.clone(), parse)?
    } else {
        parse(if is_grpc { "localhost:4317" } else { "localhost:4318" }).ok()?
    };
    let mut either = |own: &'static str, general: &'static str, parse| {
        env.optional(own, parse).or_else(|| env.optional(general, parse))
    };
    endpoint.headers = either("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS", headers)
        .unwrap_or_default();
    let path: fn(&str) -> Result<PathBuf, String> = |text| Ok(text.into());
    endpoint.certificate = env
        .optional("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", path)
        .or_else(|| env.optional("OTEL_EXPORTER_OTLP_CERTIFICATE", path));
    endpoint.timeout = env
        .optional("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", milliseconds)
        .or_else(|| env.optional("OTEL_EXPORTER_OTLP_TIMEOUT", milliseconds))
        .unwrap_or(DEFAULT_TIMEOUT);
    Some(endpoint)
}

fn grpc_endpoint(text: &str) -> Result<OtlpEndpoint, String> {
    endpoint(text, true, 4317, None)
}

fn http_endpoint(text: &str) -> Result<OtlpEndpoint, String> {
    endpoint(text, false, 4318, None)
}

/// The endpoint of all signals: each has its own path below.
fn general_http_endpoint(text: &str) -> Result<OtlpEndpoint, String> {
    endpoint(text, false, 4318, Some(TRACES_PATH))
}

fn endpoint(
    text: &str,
    is_grpc: bool,
    default_port: u16,
    below: Option<&str>,
) -> Result<OtlpEndpoint, String> {
    let rule = || "is not a URL such as http://collector:4318, or host:port".to_owned();
    let (is_secure, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return Err(rule()),
        // No scheme means in the clear: so collectors beside the pods are reached.
        None => (false, text),
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| rule())?),
        _ => (authority, default_port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(char::is_whitespace) || path.contains(char::is_whitespace) {
        return Err(rule());
    }
    let path = match (below, path.trim_end_matches('/')) {
        (Some(below), base) => format!("{base}{below}"),
        (None, "") => TRACES_PATH.to_owned(),
        (None, _) => path.to_owned(),
    };
    Ok(OtlpEndpoint {
        is_grpc,
        is_secure,
        host: host.to_owned(),
        port,
        path,
        headers: Vec::new(),
        certificate: None,
        timeout: DEFAULT_TIMEOUT,
    })
}

/// `name=value` pairs with commas between them, values percent-encoded.
fn headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.trim().to_owned(), percent_decode(value.trim())?))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| "is not a list of headers such as name=value,other=value".to_owned())
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse().ok().filter(|&millis| millis > 0);
    parsed.map(Duration::from_millis).ok_or_else(|| "is not a number of milliseconds".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|fraction: &f64| !fraction.is_nan());
    parsed.ok_or_else(|| "is not a share of requests, such as 0.1".to_owned())
}

const TRACES_PATH: &str = "/v1/traces";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::super::EnvError;
    use super::*;

    fn read(
        protocol: TraceProtocol,
        endpoint: &str,
        env: &[(&str, &str)],
    ) -> Result<Option<TraceExport>, Vec<EnvError>> {
        let config = TracingConfig { protocol, endpoint: endpoint.to_owned(), sampled_fraction: 0.25 };
        let lookup =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let mut reader = EnvReader { lookup, errors: Vec::new() };
        let read = TraceExport::read(&config, &mut reader);
        if reader.errors.is_empty() { Ok(read) } else { Err(reader.errors) }
    }

    fn otlp(protocol: TraceProtocol, endpoint: &str, env: &[(&str, &str)]) -> OtlpEndpoint {
        match read(protocol, endpoint, env).unwrap().unwrap().receiver {
            TraceReceiver::Otlp(endpoint) => endpoint,
            TraceReceiver::Stdout => panic!("standard output"),
        }
    }

    fn url(endpoint: &OtlpEndpoint) -> String {
        let scheme = if endpoint.is_secure { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", endpoint.host, endpoint.port, endpoint.path)
    }

    const HTTP: TraceProtocol = TraceProtocol::HttpProtobuf;

    #[test]
    fn without_a_protocol_there_are_no_traces_whatever_else_is_set() {
        let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", "%%%"), ("OTEL_TRACES_SAMPLER", "always_on")];
        assert_eq!(read(TraceProtocol::None, "http://collector", &env), Ok(None));
    }

    #[test]
    fn an_endpoint_is_a_url_or_a_host_with_a_port() {
        for (written, meant) in [
            ("", "http://localhost:4318/v1/traces"),
            ("collector:4000", "http://collector:4000/v1/traces"),
            ("http://collector", "http://collector:4318/v1/traces"),
            ("https://collector:1/", "https://collector:1/v1/traces"),
            ("http://collector:9411/api/traces", "http://collector:9411/api/traces"),
            ("http://[::1]:4318", "http://::1:4318/v1/traces"),
            ("[::1]", "http://::1:4318/v1/traces"),
        ] {
            assert_eq!(url(&otlp(HTTP, written, &[])), meant, "{written}");
        }
        assert_eq!(otlp(TraceProtocol::Grpc, "", &[]).port, 4317);
        for nonsense in ["ftp://x", "http://", "host:port", "a b:1"] {
            assert_eq!(read(HTTP, nonsense, &[]).unwrap_err().len(), 1, "{nonsense}");
        }
    }

    #[test]
    fn opentelemetrys_variables_come_before_knatives_settings() {
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:1/base/");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own:2/x");
        assert_eq!(url(&otlp(HTTP, "http://config", &[general])), "http://general:1/base/v1/traces");
        assert_eq!(url(&otlp(HTTP, "http://config", &[general, own])), "http://own:2/x");
        let env = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x=1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ];
        let endpoint = otlp(HTTP, "", &env);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(endpoint.headers, [pair("api-key", "a b"), pair("x", "1")]);
        assert_eq!(
            (endpoint.timeout, endpoint.certificate),
            (Duration::from_millis(2500), Some("/ca.pem".into()))
        );
    }

    #[test]
    fn the_sampler_is_the_environments_if_it_names_one() {
        let sampling = |env: &[(&str, &str)]| read(HTTP, "", env).unwrap().unwrap().sampling;
        assert_eq!(sampling(&[]), Sampling::Fraction(0.25));
        assert_eq!(sampling(&[("OTEL_TRACES_SAMPLER_ARG", "1")]), Sampling::Fraction(1.0));
        assert_eq!(sampling(&[("OTEL_TRACES_SAMPLER", "always_on")]), Sampling::Environment);
        for nonsense in ["often", "NaN"] {
            assert!(read(HTTP, "", &[("OTEL_TRACES_SAMPLER_ARG", nonsense)]).is_err());
        }
    }

    #[test]
    fn malformed_headers_and_times_are_errors() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_HEADERS", "nothing"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%zz"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ] {
            assert_eq!(read(HTTP, "", &[(name, value)]).unwrap_err().len(), 1, "{name}={value}");
        }
    }
}
