//! One shell for every program: flags, logs, signals, the admin port, errors and exit codes.
//!
//! `pilotlight` with its subcommands and the executables of the components begin and end alike, because the beginning
//! and the end are here:
//!
//! 1. [`flags::parse`] reads the command line; [`LogArgs`](flags::LogArgs) and [`AdminArgs`](flags::AdminArgs) are the
//!    same flags everywhere.
//! 2. [`start_logs`] starts the log.
//! 3. Settings are parsed before anything is started, and [`WrongSettings`] collects all that is wrong with them;
//!    `--check-config` stops [here](print_valid).
//! 4. [`StopSignals`] takes the signals over; [`AdminPort`] serves health and metrics.
//! 5. [`end`] prints why the program failed, if it did, and chooses the exit code.
//!
//! The allocator of all programs is chosen here, too, in `memory.rs`.
//!
//! Without the feature `flags` there is no clap: the queue-proxy, of which each pod has one, stays small.

mod address;
mod admin;
mod end;
#[cfg(feature = "flags")]
pub mod flags;
mod logs;
mod memory;
mod metrics;
mod signals;
mod wrong;

pub use crate::address::address;
pub use crate::admin::{AdminPort, admin_address, admin_routes};
pub use crate::end::{FAILURE, INTERRUPTED, USAGE, end, fail, print_valid};
pub use crate::logs::{
    LogFilter, LogFormat, LogSettings, flush_logs, is_dumb_terminal, set_log_level, start_logs, start_logs_on,
};
pub use crate::metrics::MetricsPage;
pub use crate::signals::{StopSignals, stop_within};
pub use crate::wrong::{WrongSettings, chain};
