//! The log of commands that draw a live view: above it, on standard error.

use pilotlight_process::{LogSettings, start_logs_on};
use tracing::Level;

use crate::screen::Screen;

/// The form of log lines and of results: for people, or for machines.
pub use pilotlight_process::LogFormat as Format;

/// Starts logging. Once a process; a second call changes nothing.
pub fn start(settings: &LogSettings, screen: &Screen) {
    start_logs_on(settings, Level::INFO, screen.clone());
}
