//! Cycles of many workloads from zero to several pods and back, with faults and changes drawn from one seed.
//!
//! `PILOTLIGHT_CYCLES=10000` sets the number of cycles, `PILOTLIGHT_SEED=7` what happens in them; the same seed has the same
//! plan.

mod plan;
mod run;

use std::env;
use std::str::FromStr;

use crate::plan::Plan;

/// Requests lost, pods left, slices that point nowhere, ports leaked, answers of a wrong pod: 0 of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cycles_to_zero_and_back_lose_nothing_and_leave_nothing() {
    let (seed, cycles) = (variable("PILOTLIGHT_SEED", 1), variable("PILOTLIGHT_CYCLES", 60));
    println!("campaign: PILOTLIGHT_SEED={seed} PILOTLIGHT_CYCLES={cycles}");
    let verdict = run::run(Plan::new(seed, cycles)).await;
    println!("campaign: PILOTLIGHT_SEED={seed} {verdict}");
    assert!(verdict.is_clean(), "PILOTLIGHT_SEED={seed} PILOTLIGHT_CYCLES={cycles} {verdict}\n{verdict:#?}");
}

fn variable<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(text) => text.parse().ok().unwrap_or_else(|| panic!("{name} is {text:?}, which is no number")),
        Err(_) => default,
    }
}
