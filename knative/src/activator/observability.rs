//! `config-observability` and `config-logging` as the activator reads them.
//!
//! The activator counts requests as `metrics-protocol` says, which is for Knative's own parts; `request-metrics-protocol`
//! is for queue-proxies.

use std::collections::BTreeMap;

use pilotlight_config::process::{Observability, TelemetryEnv};
use serde_json::{Map, Value, json};
use tracing::Level;

/// The telemetry that `config-observability` asks for, with the variables of this process before it.
pub(crate) fn telemetry(
    data: &BTreeMap<String, String>,
    env: &BTreeMap<String, String>,
) -> Result<TelemetryEnv, Vec<String>> {
    let json = as_json(data)?.to_string();
    let read = TelemetryEnv::from_env(|name| match name {
        "OBSERVABILITY_CONFIG" => Some(json.clone()),
        name => env.get(name).cloned(),
    });
    read.map_err(|faults| faults.iter().map(|fault| format!("config-observability: {fault}")).collect())
}

/// The part that may change while the activator runs: the request log.
pub(crate) fn request_log(data: &BTreeMap<String, String>) -> Result<Observability, Vec<String>> {
    telemetry(data, &BTreeMap::new()).map(|told| told.observability)
}

/// The keys of the ConfigMap as the JSON that the controller makes of them for queue-proxies.
fn as_json(data: &BTreeMap<String, String>) -> Result<Value, Vec<String>> {
    let (mut faults, mut top) = (Vec::new(), Map::new());
    let text = |key: &str| data.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
    let mut part = |name: &str, fields: [(&str, Option<Value>); 3]| {
        let fields = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?)));
        top.insert(name.to_owned(), Value::Object(fields.collect()));
    };
    let words = |key: &str| text(key).map(|value| json!(value));
    let rate = text("tracing-sampling-rate").and_then(|value| match value.parse::<f64>() {
        Ok(rate) if rate.is_finite() => Some(json!(rate)),
        _ => {
            faults.push(format!("config-observability: tracing-sampling-rate: {value:?} is no number"));
            None
        }
    });
    let tracing = [("protocol", words("tracing-protocol")), ("endpoint", words("tracing-endpoint"))];
    part("tracing", [tracing[0].clone(), tracing[1].clone(), ("samplingRate", rate)]);
    let metrics = [("protocol", words("metrics-protocol")), ("endpoint", words("metrics-endpoint"))];
    part("requestMetrics", [metrics[0].clone(), metrics[1].clone(), ("", None)]);
    for (key, field) in [
        ("logging.enable-request-log", "enableRequestLog"),
        ("logging.enable-probe-request-log", "enableProbeRequestLog"),
    ] {
        // Knative takes whatever is not true for false.
        if let Some(Ok(value)) = text(key).map(str::parse::<bool>) {
            top.insert(field.to_owned(), json!(value));
        }
    }
    if let Some(template) = data.get("logging.request-log-template") {
        top.insert("requestLogTemplate".to_owned(), json!(template));
    }
    if faults.is_empty() { Ok(Value::Object(top)) } else { Err(faults) }
}

/// What `config-logging` has the activator log; `None`: nothing that can be read.
pub(crate) fn log_level(data: &BTreeMap<String, String>) -> Option<Level> {
    let own = data.get("loglevel.activator").filter(|level| !level.is_empty()).cloned();
    let level = own.or_else(|| {
        let zap: Value = serde_json::from_str(data.get("zap-logger-config")?).ok()?;
        Some(zap.get("level")?.as_str()?.to_owned())
    })?;
    match level.trim().to_ascii_lowercase().as_str() {
        "debug" => Some(Level::DEBUG),
        "info" => Some(Level::INFO),
        "warn" | "warning" => Some(Level::WARN),
        "error" | "dpanic" | "panic" | "fatal" => Some(Level::ERROR),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_config::process::MetricsProtocol;

    use super::*;

    fn map(data: &[(&str, &str)]) -> BTreeMap<String, String> {
        data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_empty_map_asks_for_nothing() {
        assert_eq!(telemetry(&map(&[]), &map(&[])), Ok(TelemetryEnv::default()));
    }

    #[test]
    fn requests_are_counted_as_the_parts_of_knative_are() {
        let protocol = |key| {
            let told = telemetry(&map(&[(key, "prometheus")]), &map(&[])).unwrap();
            told.observability.request_metrics.protocol
        };
        assert_eq!(protocol("metrics-protocol"), MetricsProtocol::Prometheus);
        assert_eq!(protocol("request-metrics-protocol"), MetricsProtocol::None, "that is for queue-proxies");
    }

    #[test]
    fn traces_and_the_request_log_have_knatives_keys() {
        let data = map(&[
            ("tracing-protocol", "http/protobuf"),
            ("tracing-endpoint", "http://collector:4318"),
            ("tracing-sampling-rate", "0.5"),
            ("logging.enable-request-log", "true"),
            ("logging.request-log-template", "{{.Request.Method}}\n"),
        ]);
        let told = telemetry(&data, &map(&[])).unwrap();
        assert!(told.traces.is_some());
        let asked = told.observability;
        assert_eq!((asked.tracing.sampled_fraction, asked.enable_request_log), (0.5, true));
        assert_eq!(
            (asked.request_log_template.as_str(), asked.enable_probe_request_log),
            ("{{.Request.Method}}\n", false)
        );
    }

    #[test]
    fn variables_of_the_process_count_and_faults_name_the_map() {
        let env = map(&[("OTEL_SERVICE_NAME", "front"), ("METRICS_PROMETHEUS_PORT", "9999")]);
        let told = telemetry(&map(&[]), &env).unwrap();
        assert_eq!((told.service_name.as_deref(), told.prometheus.port), (Some("front"), Some(9999)));
        let faults = telemetry(&map(&[("tracing-sampling-rate", "often")]), &env).unwrap_err();
        assert_eq!(faults, [r#"config-observability: tracing-sampling-rate: "often" is no number"#]);
        let faults = telemetry(&map(&[("tracing-protocol", "pigeon")]), &env).unwrap_err();
        assert!(faults.len() == 1 && faults[0].contains("pigeon"), "{faults:?}");
    }

    #[test]
    fn the_activators_own_level_comes_before_that_of_all() {
        let all = ("zap-logger-config", r#"{"level": "warn", "encoding": "json"}"#);
        assert_eq!(log_level(&map(&[all])), Some(Level::WARN));
        assert_eq!(log_level(&map(&[all, ("loglevel.activator", "debug")])), Some(Level::DEBUG));
        assert_eq!(log_level(&map(&[("loglevel.activator", "loud")])), None);
        assert_eq!(log_level(&map(&[])), None);
    }
}
