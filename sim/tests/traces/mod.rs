//! Traces in files of a folder of their own, and what is read from them.
#![allow(dead_code, reason = "each of the tests that share it uses a part")]

use std::fs;

use pilotlight_sim::traffic::{Arrival, Traffic, TrafficSpec};
use tempfile::TempDir;

/// The traffic of `trace: {…}` in a folder with these files.
pub(crate) fn load(files: &[(&str, &str)], trace: &str) -> Result<Traffic, String> {
    let folder = folder(files);
    let yaml = format!("trace: {{{trace}}}");
    let spec: TrafficSpec = yaml.parse().map_err(|faults: pilotlight_config::Faults| faults.to_string())?;
    spec.load(folder.path()).map_err(|error| error.to_string())
}

pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

pub(crate) fn read(text: &str) -> Traffic {
    load(&[("f", text)], "file: f").unwrap()
}

pub(crate) fn error(text: &str, more: &str) -> String {
    load(&[("f", text)], &format!("file: f{more}")).unwrap_err()
}

/// Milliseconds of arrival and of service.
pub(crate) fn millis(traffic: &Traffic) -> Vec<(u64, Option<u64>)> {
    let millis = |arrival: Arrival| {
        (arrival.at.as_nanos() / 1_000_000, arrival.service.map(|service| service.as_millis() as u64))
    };
    traffic.arrivals(1).map(millis).collect()
}

/// Milliseconds of service, the shortest first.
pub(crate) fn service_millis(traffic: &Traffic) -> Vec<u64> {
    let mut all: Vec<u64> = millis(traffic).into_iter().filter_map(|(_, service)| service).collect();
    all.sort_unstable();
    all
}

/// Milliseconds of arrival.
pub(crate) fn starts_millis(traffic: &Traffic) -> Vec<u64> {
    millis(traffic).into_iter().map(|(at, _)| at).collect()
}

/// The name of the format, as it was recognised or told.
pub(crate) fn format(traffic: &Traffic) -> String {
    traffic.loaded()[0].format.to_string()
}
