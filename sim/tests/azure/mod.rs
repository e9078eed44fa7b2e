//! The real trace: an hour of requests to a language model that writes code, and the times it took to load a model
//! in production. They are not part of the project.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use pilotlight_core::Time;
use pilotlight_sim::dist::Distribution;
use pilotlight_sim::scenario::{Load, Scenario};
use pilotlight_sim::traffic::{Arrival, Traffic};

/// The trace as a scenario: 20 ms, and 0.1 ms for each token read, and 15 ms for each token written. `None`, and a
/// word about it, where the file is not there.
pub fn scenario() -> Option<Scenario> {
    let text = read("azure_llm_2023_code.csv")?;
    let arrivals: Vec<Arrival> = text.lines().skip(1).map(arrival).collect();
    let first = arrivals[0].at;
    let moved = |arrival: &Arrival| Arrival { at: Time::EPOCH + (arrival.at - first), ..*arrival };
    let arrivals: Vec<Arrival> = arrivals.iter().map(moved).collect();
    let length = Duration::from_secs(3_600);
    let load = Load::Open(Traffic::recorded(arrivals, length));
    Some(Scenario {
        name: "azure_llm_2023_code".to_owned(),
        ..Scenario::new(load, length, Duration::from_secs(1))
    })
}

/// How long a model took to load.
pub fn model_loads() -> Option<Distribution> {
    let text = read("cold_start_model_load.csv")?;
    let millis = text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse::<f64>().unwrap());
    let loads: Vec<Duration> = millis.map(|millis| Duration::from_secs_f64(millis / 1e3)).collect();
    Some(Distribution::empirical("cold_start_model_load.csv", &loads).unwrap())
}

/// `2023-11-16 18:17:03.9799600,4808,10`; all of one day.
fn arrival(line: &str) -> Arrival {
    let mut fields = line.split(',');
    let clock = fields.next().unwrap().split_once(' ').unwrap().1;
    let clock: Vec<f64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
    let seconds = clock[0] * 3_600.0 + clock[1] * 60.0 + clock[2];
    let mut tokens = fields.map(|tokens| tokens.parse::<f64>().unwrap());
    let (read, written) = (tokens.next().unwrap(), tokens.next().unwrap());
    let service = Duration::from_secs_f64(0.020 + 0.0001 * read + 0.015 * written);
    Arrival { at: Time::EPOCH + Duration::from_secs_f64(seconds), service: Some(service) }
}

fn read(name: &str) -> Option<String> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/workloads");
    let folder = env::var_os("PILOTLIGHT_WORKLOADS").map_or_else(beside, PathBuf::from);
    let path = folder.join(name);
    let text = fs::read_to_string(&path).ok();
    if text.is_none() {
        println!("skipped: there is no {}", path.display());
    }
    text
}
