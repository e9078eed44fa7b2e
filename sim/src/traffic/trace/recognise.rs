//! The format of a file, by its first line, and the settings that mean something for it.

use super::{Format, TraceSpec, TrafficError};

/// The format, by the first line that is not empty.
pub(super) fn recognise(start: &str) -> Option<Format> {
    let start = start.trim_start_matches('\u{feff}').trim_start();
    let line = start.lines().next()?.trim();
    if line.starts_with('{') {
        return Some(recognise_json(start, line));
    }
    if line.starts_with('[') && line.contains(']') {
        return Some(Format::Envoy);
    }
    if line.split_once('[').is_some_and(|(_, rest)| super::stamp::common_log_start(rest)) {
        return Some(Format::Nginx);
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
        () if columns.len() >= 3 && is_nanos(&columns[0]) => Format::Vegeta,
        () => return None,
    })
}

fn recognise_json(start: &str, line: &str) -> Format {
    let has = |text: &str, key: &str| text.contains(&format!("\"{key}\""));
    if has(line, "revision") && has(line, "inputs") {
        Format::Journal
    } else if has(start, "resultType") || (has(start, "data") && has(start, "metric")) {
        Format::Prometheus
    } else {
        Format::JsonLines
    }
}

/// A setting that would silently do nothing is a mistake.
pub(super) fn refuse_meaningless_options(spec: &TraceSpec, format: Format) -> Result<(), TrafficError> {
    use Format::{
        AzureFunctions2019, AzureFunctions2021, AzureLlm, Journal, JsonLines, PerMinute, PerSecond, Plain,
        Prometheus,
    };
    let rates: &[Format] = &[PerSecond, PerMinute, AzureFunctions2019, Prometheus, Journal];
    let options: [(bool, &'static str, &[Format]); 10] = [
        (spec.revision.is_some(), "revision", &[Plain, Journal]),
        (spec.column.is_some(), "column", &[PerSecond, PerMinute]),
        (spec.function.is_some(), "function", &[AzureFunctions2019, AzureFunctions2021]),
        (spec.durations.is_some(), "durations", &[AzureFunctions2019]),
        (spec.tokens.is_some(), "tokens", &[AzureLlm]),
        (spec.time.is_some(), "time", &[JsonLines]),
        (spec.duration.is_some(), "duration", &[JsonLines]),
        (spec.duration_unit.is_some(), "duration-unit", &[JsonLines]),
        (spec.stamped.is_some(), "stamped", &[JsonLines]),
        (spec.arrivals.is_some(), "arrivals", rates),
    ];
    match options.iter().find(|(is_given, _, formats)| *is_given && !formats.contains(&format)) {
        None => Ok(()),
        Some((_, option, _)) => {
            Err(TrafficError::Meaningless { file: spec.file.clone(), option, format: name(format) })
        }
    }
}

/// The name of a format, as it is written.
pub(super) fn name(format: Format) -> &'static str {
    FORMATS.iter().find(|(_, known)| *known == format).map_or("", |(name, _)| name)
}

/// All names, for a message.
pub(in crate::traffic) fn format_names() -> String {
    FORMATS.map(|(name, _)| name).join(", ")
}

/// Every format by its name.
pub(in crate::traffic) const FORMATS: [(&str, Format); 14] = [
    ("plain", Format::Plain),
    ("per-second", Format::PerSecond),
    ("per-minute", Format::PerMinute),
    ("azure-functions-2019", Format::AzureFunctions2019),
    ("azure-functions-2021", Format::AzureFunctions2021),
    ("azure-llm", Format::AzureLlm),
    ("gentd26", Format::Gentd26),
    ("nginx", Format::Nginx),
    ("envoy", Format::Envoy),
    ("json-lines", Format::JsonLines),
    ("vegeta", Format::Vegeta),
    ("hey", Format::Hey),
    ("prometheus", Format::Prometheus),
    ("journal", Format::Journal),
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
