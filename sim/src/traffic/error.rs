//! What is wrong with traffic: with a number that was written, or with the file of a trace.

use pilotlight_config::Fault;

use crate::dist::DistError;

/// Why traffic cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// A number that cannot be meant.
    #[error("{field}: {value:?} {rule}")]
    Setting {
        /// The place in the traffic, such as `constant.rate` or `[1].cut.to`.
        field: String,
        /// The number.
        value: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A setting that does nothing for the format of the trace.
    #[error("{file}: {option} means nothing for {format}")]
    Meaningless {
        /// The trace.
        file: String,
        /// The setting.
        option: &'static str,
        /// The format.
        format: &'static str,
    },
    /// A file that cannot be opened or read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A line that is not of the format.
    #[error("{file}, line {line}: {problem} (skip-bad-lines passes over such lines)")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The problem.
        problem: String,
    },
    /// A file that is, as a whole, not what it should be.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// The problem.
        problem: String,
    },
    /// A file whose format is not recognised.
    #[error("{file}: {advice}")]
    Unrecognised {
        /// The file.
        file: String,
        /// What it is and what to do about it, or that it is not known.
        advice: String,
    },
    /// A distribution of service times.
    #[error("{file}: {source}")]
    Services {
        /// The file.
        file: String,
        /// The reason.
        source: DistError,
    },
}

impl TrafficError {
    /// As a fault of traffic that is written at `path`.
    pub(crate) fn at(self, path: &str) -> Fault {
        match self {
            TrafficError::Setting { field, value, rule } => Fault::new(join(path, &field), value, rule),
            other => Fault::without_value(path, other.to_string()),
        }
    }

    /// The error, of traffic that is a part of other traffic.
    pub(super) fn below(self, path: &str) -> TrafficError {
        match self {
            TrafficError::Setting { field, value, rule } => {
                TrafficError::Setting { field: join(path, &field), value, rule }
            }
            other => other,
        }
    }
}

fn join(path: &str, field: &str) -> String {
    let separator = if path.is_empty() || field.starts_with('[') { "" } else { "." };
    format!("{path}{separator}{field}")
}
