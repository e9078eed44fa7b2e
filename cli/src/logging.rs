//! Where log lines go: standard error, as text or as JSON. `RUST_LOG` chooses what is logged.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::uptime;

use crate::screen::Screen;

/// How log lines and results look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Starts logging. Once a process; a second call changes nothing.
pub fn start(format: Format, screen: &Screen) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(screen.clone());
    // An error means that somebody else has begun already.
    let _ = match format {
        Format::Text => {
            let colours =
                Screen::is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            builder.compact().with_target(false).with_timer(uptime()).with_ansi(colours).try_init()
        }
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}
