//! Waiting for what others do, with a line whenever something changes.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, sleep};

use super::tell;

/// The state of something that is waited for.
pub(super) enum Waiting {
    /// Nothing is left to wait for.
    Done,
    /// Something is left: a line for people.
    Not(String),
}

/// Looks once a second until it is done, and tells each line once.
pub(super) async fn wait(
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Waiting>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    let mut told = String::new();
    loop {
        let line = match look().await? {
            Waiting::Done => return Ok(()),
            Waiting::Not(line) => line,
        };
        if line != told {
            tell(&format!("  {line}"));
            told.clone_from(&line);
        }
        if Instant::now() >= deadline {
            return Err(anyhow!("not within {}: {line}", pilotlight_config::duration::format(within)));
        }
        sleep(INTERVAL).await;
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
