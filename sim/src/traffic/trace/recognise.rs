//! The format of a file, by its first lines, and the settings that mean something for it.

use super::logs::{common_time, unwrapped};
use super::{Format, TraceSpec, TrafficError, stamp};

/// The format: of a table by its first line, of a log by the first line that is one's. `Err` says what to do.
pub(super) fn recognise(start: &str) -> Result<Format, String> {
    let start = start.trim_start_matches('\u{feff}').trim_start();
    if let Some((_, what)) = UNREADABLE.iter().find(|(beginning, _)| start.starts_with(beginning)) {
        return Err((*what).to_owned());
    }
    let first = start.lines().next().unwrap_or("").trim();
    if let Some(format) = table(first) {
        return Ok(format);
    }
    // A program may have said something before its first request.
    let known =
        start.lines().map(str::trim).filter(|line| !line.is_empty()).find_map(|line| log(start, line));
    known.unwrap_or_else(|| {
        Err(format!(
            "its format is not recognised; name it with `--trace-format`, or `format:` in a scenario: {}",
            format_names()
        ))
    })
}

/// Whether a file is of objects rather than a table.
pub(super) fn is_json(start: &str) -> bool {
    start.trim_start_matches('\u{feff}').trim_start().starts_with('{')
}

/// The format of a log, by a line of it; `None` if it is no line of a request.
fn log(start: &str, line: &str) -> Option<Result<Format, String>> {
    let line = unwrapped(line);
    if line.starts_with('{') {
        return Some(json(start, &line));
    }
    // Behind Envoy's time comes the request; others write a level there.
    let is_envoy =
        |time: &str| stamp::iso(time).is_some() && line[time.len() + 2..].trim_start().starts_with('"');
    let bracketed = line
        .split_once('[')
        .map(|(before, rest)| (before, rest.split_once(']').map_or(rest, |(time, _)| time)));
    let format = match bracketed {
        Some(("", time)) if is_envoy(time) => Format::Envoy,
        // A program's own messages.
        Some(("", time)) if stamp::iso(time).is_some() => return None,
        _ if times(&line).any(|time| time.contains('.') && stamp::common_log(time).is_some()) => {
            Format::Haproxy
        }
        _ if times(&line).any(|time| common_time(time).is_some()) => Format::Nginx,
        _ if super::logs::is_alb(&line) => Format::AwsAlb,
        _ => return None,
    };
    Some(Ok(format))
}

/// What stands in brackets. A syslog line has some before the time: `haproxy[14389]:`.
fn times(line: &str) -> impl Iterator<Item = &str> {
    line.split('[').skip(1).filter_map(|rest| rest.split_once(']').map(|(time, _)| time))
}

fn table(line: &str) -> Option<Format> {
    if line.starts_with("#Version:") || line.starts_with("#Fields:") {
        return Some(Format::CloudFront);
    }
    let columns: Vec<String> =
        line.split(',').map(|name| name.trim().trim_matches('"').to_ascii_lowercase()).collect();
    let has = |names: &[&str]| names.iter().all(|name| columns.iter().any(|column| column == name));
    let is_nanos = |text: &str| text.len() == 19 && text.bytes().all(|byte| byte.is_ascii_digit());
    Some(match () {
        () if has(&["t_start_s"]) => Format::Plain,
        () if has(&["hashfunction", "1", "1440"]) => Format::AzureFunctions2019,
        () if has(&["func", "end_timestamp", "duration"]) => Format::AzureFunctions2021,
        () if has(&["timestamp", "contexttokens", "generatedtokens"]) => Format::AzureLlm,
        () if has(&["gmt_create", "exec_time_seconds"]) => Format::Gentd26,
        () if has(&["response-time", "offset"]) => Format::Hey,
        () if has(&["request-start", "request-duration"]) => Format::Oha,
        () if has(&["timestamp", "elapsed", "label"]) => Format::Jmeter,
        () if has(&["metric_name", "timestamp", "metric_value"]) => Format::K6,
        () if has(&["timestamp", "user count", "name", "total request count"]) => Format::Locust,
        () if columns.len() >= 3 && is_nanos(&columns[0]) => Format::Vegeta,
        () if columns.len() >= 2 && columns[0] == "time" => Format::Grafana,
        () => return None,
    })
}

fn json(start: &str, line: &str) -> Result<Format, String> {
    let has = |text: &str, key: &str| text.contains(&format!("\"{key}\""));
    if has(start, "resourceSpans") || has(start, "resourceMetrics") || has(start, "resourceLogs") {
        return Err("it is OpenTelemetry's, which is not read: take the access log of what received the requests, or \
                    Prometheus' answer to a range query of their rate"
            .to_owned());
    }
    Ok(match () {
        () if has(line, "revision") && has(line, "inputs") => Format::Journal,
        () if has(line, "metric") && has(line, "type") && has(line, "data") && !has(start, "resultType") => {
            Format::K6
        }
        () if has(start, "resultType") || (has(start, "status") && has(start, "errorType")) => {
            Format::Prometheus
        }
        () => Format::JsonLines,
    })
}

/// A setting that would silently do nothing is a mistake.
pub(super) fn refuse_meaningless_options(spec: &TraceSpec, format: Format) -> Result<(), TrafficError> {
    use Format::{
        Apache, AzureFunctions2019, AzureFunctions2021, AzureLlm, Grafana, Gunicorn, Jmeter, Journal,
        JsonLines, K6, Locust, Nginx, PerInterval, PerMinute, PerSecond, Plain, Prometheus,
    };
    let tables: &[Format] = &[PerSecond, PerMinute, PerInterval, Grafana];
    let named: &[Format] = &[PerSecond, PerMinute, PerInterval, Grafana, Locust, K6, Jmeter];
    let rates: &[Format] =
        &[PerSecond, PerMinute, PerInterval, Grafana, Locust, AzureFunctions2019, Prometheus, Journal];
    let durations: &[Format] = &[JsonLines, Nginx, Apache, Gunicorn];
    let options: [(bool, &'static str, &[Format]); 11] = [
        (spec.revision.is_some(), "revision", &[Plain, Journal]),
        (spec.column.is_some(), "column", tables),
        (spec.step.is_some(), "step", tables),
        (spec.name.is_some(), "name", named),
        (spec.function.is_some(), "function", &[AzureFunctions2019, AzureFunctions2021]),
        (spec.durations.is_some(), "durations", &[AzureFunctions2019]),
        (spec.tokens.is_some(), "tokens", &[AzureLlm]),
        (spec.time.is_some(), "time", &[JsonLines]),
        (spec.duration.is_some(), "duration", durations),
        (spec.duration_unit.is_some(), "duration-unit", durations),
        (spec.arrivals.is_some(), "arrivals", rates),
    ];
    let mut given = options.iter().filter(|(is_given, ..)| *is_given);
    let stamp_means_nothing = spec.stamped.is_some() && !is_stamped(format);
    let option = match given.find(|(_, _, formats)| !formats.contains(&format)) {
        Some((_, option, _)) => option,
        None if stamp_means_nothing => "stamped",
        None => return Ok(()),
    };
    Err(TrafficError::Meaningless { file: spec.file.clone(), option, format: name(format) })
}

/// Whether a line of the format has one time, which may be the start or the end of its request.
fn is_stamped(format: Format) -> bool {
    use Format::{
        Apache, AwsAlb, CloudFront, Envoy, Gentd26, Gunicorn, Haproxy, Jmeter, JsonLines, K6, Nginx, Traefik,
    };
    let stamped = [
        Apache, AwsAlb, CloudFront, Envoy, Gentd26, Gunicorn, Haproxy, Jmeter, JsonLines, K6, Nginx, Traefik,
    ];
    stamped.contains(&format)
}

/// The name of a format, as it is written.
pub(super) fn name(format: Format) -> &'static str {
    FORMATS.iter().find(|(_, known)| *known == format).map_or("", |(name, _)| name)
}

/// All names, for a message.
fn format_names() -> String {
    FORMATS.map(|(name, _)| name).join(", ")
}

/// Every format by its name.
pub(in crate::traffic) const FORMATS: [(&str, Format); 26] = [
    ("plain", Format::Plain),
    ("per-second", Format::PerSecond),
    ("per-minute", Format::PerMinute),
    ("per-interval", Format::PerInterval),
    ("grafana", Format::Grafana),
    ("nginx", Format::Nginx),
    ("apache", Format::Apache),
    ("gunicorn", Format::Gunicorn),
    ("traefik", Format::Traefik),
    ("haproxy", Format::Haproxy),
    ("envoy", Format::Envoy),
    ("aws-alb", Format::AwsAlb),
    ("cloudfront", Format::CloudFront),
    ("json-lines", Format::JsonLines),
    ("k6", Format::K6),
    ("jmeter", Format::Jmeter),
    ("locust", Format::Locust),
    ("vegeta", Format::Vegeta),
    ("hey", Format::Hey),
    ("oha", Format::Oha),
    ("prometheus", Format::Prometheus),
    ("journal", Format::Journal),
    ("azure-functions-2019", Format::AzureFunctions2019),
    ("azure-functions-2021", Format::AzureFunctions2021),
    ("azure-llm", Format::AzureLlm),
    ("gentd26", Format::Gentd26),
];

/// Files that are something else, by how they begin, and what to do about each.
const UNREADABLE: &[(&str, &str)] = &[
    ("\u{1f}\u{fffd}", "it is compressed by gzip: unpack it first, such as by `gunzip --keep`"),
    ("(\u{fffd}/\u{fffd}", "it is compressed by zstd: unpack it first, such as by `unzstd`"),
    ("BZh", "it is compressed by bzip2: unpack it first, such as by `bunzip2 --keep`"),
    ("\u{fffd}7zXZ", "it is compressed by xz: unpack it first, such as by `unxz --keep`"),
    ("PK\u{3}\u{4}", "it is a zip archive: unpack it first; of a workbook, export the sheet as CSV"),
    (
        "#Software: Microsoft",
        "it is a log of IIS, which is not read: write when requests came, and how long they took, as CSV with the \
         columns t_start_s and duration_s",
    ),
    ("PAR1", "it is a Parquet file: write the times, or counts, as CSV"),
    ("<?xml", "it is XML: JMeter writes CSV with `jmeter.save.saveservice.output_format=csv`"),
    ("[{", "it is a list of JSON: write an object a line, such as by `jq -c '.[]'`"),
    ("[\n", "it is a list of JSON: write an object a line, such as by `jq -c '.[]'`"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_written_as_it_is_named() {
        for (name, format) in FORMATS {
            assert_eq!(serde_json::to_string(&format).unwrap(), format!("{name:?}"));
        }
    }
}
