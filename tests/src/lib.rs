//! The harness of tests from outside: a running `pilotlight`, requests to send it, processes to look for, and a way
//! to wait for something without sleeping for luck.

pub mod cluster;
pub mod components;
pub mod http;
pub mod manifest;
pub mod process;
pub mod properties;
pub mod proxies;
pub mod recorder;
pub mod run;
pub mod sample;
pub mod series;
mod started;
pub mod talk;

use std::time::{Duration, Instant};

pub use started::binary;

/// Waits until `condition` gives a value, and fails the test if that takes longer than `within`.
pub async fn eventually<T>(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A deadline for things that happen at once, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(15);

/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
