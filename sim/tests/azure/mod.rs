//! The real trace: an hour of requests to a language model that writes code, and the times it took to load a model
//! in production. They are not part of the project.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use pilotlight_core::Time;
use pilotlight_sim::dist::{Distribution, DistributionSpec};
use pilotlight_sim::scenario::{Load, Scenario};
use pilotlight_sim::traffic::TrafficSpec;

/// The trace as a scenario that begins with its first request: 20 ms, and 0.1 ms for each token read, and 15 ms for
/// each token written. `None`, and a word about it, where the file is not there.
pub fn scenario() -> Option<Scenario> {
    let folder = workloads("azure_llm_2023_code.csv")?;
    let tokens = "{base: 20ms, prompt: 100us, generated: 15ms}";
    let spec = format!("trace: {{file: azure_llm_2023_code.csv, tokens: {tokens}}}");
    let spec: TrafficSpec = spec.parse().unwrap();
    let traffic = spec.load(&folder).unwrap();
    let first = traffic.arrivals(0).next().unwrap().at - Time::EPOCH;
    let load = Load::Open(traffic.cut(first, traffic.duration()));
    Some(Scenario {
        name: "azure_llm_2023_code".to_owned(),
        ..Scenario::new(load, Duration::from_secs(3_600), Duration::from_secs(1))
    })
}

/// How long a model took to load.
pub fn model_loads() -> Option<Distribution> {
    let folder = workloads("cold_start_model_load.csv")?;
    let spec: DistributionSpec = "empirical:cold_start_model_load.csv:value:ms".parse().unwrap();
    Some(spec.load(&folder).unwrap())
}

/// The folder with the files, if this one is in it.
#[expect(clippy::disallowed_methods, reason = "a test may be told where the files are")]
fn workloads(file: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/workloads");
    let folder = env::var_os("PILOTLIGHT_WORKLOADS").map_or_else(beside, PathBuf::from);
    let is_there = folder.join(file).is_file();
    if !is_there {
        println!("skipped: there is no {file}; PILOTLIGHT_WORKLOADS names its folder");
    }
    is_there.then_some(folder)
}
