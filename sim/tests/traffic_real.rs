//! Real traces, where they are at hand: in the folder `PILOTLIGHT_WORKLOADS`, or beside the workspace.

use std::path::PathBuf;
use std::time::Duration;

use pilotlight_sim::dist::DistributionSpec;
use pilotlight_sim::traffic::{Description, Traffic, TrafficSpec};

/// The folder with the real files, if this one is in it.
#[expect(clippy::disallowed_methods, reason = "a test may be told where the files are")]
fn workloads(file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PILOTLIGHT_WORKLOADS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/workloads"),
        PathBuf::from,
    );
    let is_there = folder.join(file).is_file();
    if !is_there {
        println!("skipped: {file} is not there; PILOTLIGHT_WORKLOADS names its folder");
    }
    is_there.then_some(folder)
}

fn load(file: &str, more: &str) -> Option<(Traffic, Description)> {
    let folder = workloads(file)?;
    let spec: TrafficSpec = format!("trace: {{file: {file}{more}}}").parse().unwrap();
    let traffic = spec.load(&folder).unwrap();
    let description = traffic.describe(1);
    println!("{description}");
    assert!(traffic.loaded()[0].is_recognised);
    Some((traffic, description))
}

#[test]
fn an_hour_of_a_language_model_is_bursty() {
    let cost = ", tokens: {base: 100ms, prompt: 50us, generated: 20ms}";
    let Some((traffic, found)) = load("azure_llm_2023_code.csv", cost) else { return };
    assert_eq!(found.requests, 8_819);
    assert!((60..=70).contains(&found.peak_per_second), "{}", found.peak_per_second);
    assert!((found.longest_gaps[0].length_s - 217.0).abs() < 1.0, "{:?}", found.longest_gaps);
    assert_eq!(found.service.unwrap().known, 8_819);
    assert!(found.gap_cv.unwrap() > 2.0 && found.silence.times > 0);
    // Training and held-out part: nothing is lost, nothing is in both.
    let middle = traffic.duration() / 2;
    let parts = [traffic.cut(Duration::ZERO, middle), traffic.cut(middle, Duration::MAX)];
    assert_eq!(parts.map(|part| part.arrivals(1).count()).iter().sum::<usize>(), 8_819);
}

#[test]
fn eleven_days_of_image_generation_are_mostly_silent() {
    let Some((_, found)) = load("gentd26_lora_2024-11-15_26.csv", "") else { return };
    assert_eq!(found.requests, 9_930);
    assert!((found.duration_s / 86_400.0 - 11.3).abs() < 0.1, "{}", found.duration_s);
    assert!(found.silence.times > 1_000 && found.service.unwrap().p50_s > 1.0);
}

#[test]
fn functions_of_azure_start_before_they_end() {
    let Some((_, found)) = load("invitro_Azure2021_200.csv", "") else { return };
    assert!((199..=200).contains(&found.requests), "{}", found.requests);
}

#[test]
fn loading_times_of_models_have_the_quantiles_that_are_known() {
    let Some(folder) = workloads("cold_start_model_load.csv") else { return };
    let spec: DistributionSpec = "empirical:cold_start_model_load.csv:value:ms".parse().unwrap();
    let loads = spec.load(&folder).unwrap();
    assert!((loads.quantile(0.5).as_secs_f64() - 22.7).abs() < 0.1, "{:?}", loads.quantile(0.5));
    assert!((loads.quantile(0.95).as_secs_f64() - 45.4).abs() < 0.1, "{:?}", loads.quantile(0.95));
}
