//! Where the log of a component goes that runs as a process of its own.

use std::io::{self, IsTerminal, Write, stderr};
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::EnvFilter;

use pilotlight_telemetry::lines::Lines;

/// Starts the process's log on standard error: one JSON object a line, or compact lines for people. `RUST_LOG`
/// decides what is logged, and `level` where it is not set. Changes nothing if logs have been started already.
///
/// Whoever logs never waits: when nobody reads standard error, lines are dropped, and their number is told as soon
/// as somebody does. So a process must [`flush_logs`] before it ends.
pub fn start_logs(json: bool, level: Level) {
    let lost: fn(u64) -> String = if json {
        |lost| {
            format!(
                "{{\"level\":\"WARN\",\"message\":\"Dropped log lines that nobody read\",\"lines\":{lost}}}\n"
            )
        }
    } else {
        |lost| format!("WARN Dropped log lines that nobody read lines={lost}\n")
    };
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || {
        let started = LOGS.get_or_init(|| Lines::start("log", stderr(), lost).ok());
        LogWriter(started.as_ref())
    });
    // Err: whoever runs us as a part of something larger has decided already.
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.compact().with_ansi(colours).try_init()
    };
}

/// Waits until what was logged is written, for up to a second. To be called before the process ends.
pub fn flush_logs() {
    if let Some(Some(lines)) = LOGS.get() {
        lines.flush(FLUSH_LIMIT);
    }
}

/// One event's way out. `None`: there is no thread to write it, so it is written here.
struct LogWriter(Option<&'static Lines>);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(lines) => lines.push(line.to_vec()),
            None => stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static LOGS: OnceLock<Option<Lines>> = OnceLock::new();
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
