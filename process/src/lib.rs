//! What every program shares, whatever it does: logs, signals, the text of `/metrics`.

pub mod exposition;
mod logs;
mod signals;

pub use crate::logs::{flush_logs, start_logs};
pub use crate::signals::StopSignals;
