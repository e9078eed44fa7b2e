//! Where the log of a component goes that runs as a process of its own.

use std::io::{IsTerminal, stderr};

use tracing::Level;
use tracing_subscriber::EnvFilter;

/// Starts the process's log on standard error: one JSON object a line, or compact lines for people. `RUST_LOG`
/// decides what is logged, and `level` where it is not set. Changes nothing if logs have been started already.
pub fn start_logs(json: bool, level: Level) {
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // Err: whoever runs us as a part of something larger has decided already.
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.compact().with_ansi(colours).try_init()
    };
}
