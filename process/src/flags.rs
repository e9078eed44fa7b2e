//! The flags that every program has, and their parser.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser};

pub use crate::address::address;
use crate::end::USAGE;
use crate::logs::{LogFilter, LogFormat, LogSettings};

/// Flags of the log.
#[derive(Clone, Debug, Default, Args)]
pub struct LogArgs {
    /// Form of log lines
    #[arg(
        long,
        value_name = "FORMAT",
        env = "PILOTLIGHT_LOG_FORMAT",
        hide_env_values = true,
        default_value = "text"
    )]
    log_format: LogFormat,
    /// Log lines to write: off, error, warn, info, debug or trace, or levels by target as in info,app=off. Without this
    /// flag RUST_LOG says so [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogFilter>,
    /// No colours, even on a terminal. NO_COLOR says the same
    #[arg(long)]
    no_color: bool,
    /// The name that `--log-format json` had before
    #[arg(long, hide = true)]
    log_json: bool,
}

impl LogArgs {
    /// The form of log lines.
    pub fn format(&self) -> LogFormat {
        if self.log_json { LogFormat::Json } else { self.log_format }
    }

    /// The settings that the flags stand for.
    pub fn settings(&self) -> LogSettings {
        LogSettings { format: self.format(), filter: self.log_level.clone(), no_color: self.no_color }
    }
}

/// Flags of the admin port. A program tells what is served there, and where if the flag is not given, by clap's
/// `mut_arg`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct AdminArgs {
    /// Address of the admin port: /metrics, /healthz, /readyz
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub admin: Option<SocketAddr>,
}

/// The flag that stops a program before it starts anything.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct CheckArgs {
    /// Check all settings (flags, environment, files), say what is in force, and end; nothing is started
    #[arg(long)]
    pub check_config: bool,
}

/// The arguments of a program, of which the first is its name; or the exit code, once help, version or the error has
/// been printed.
pub fn parse<A: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<A, ExitCode> {
    try_parse(args).map_err(|error| refuse(&error))
}

/// The arguments of a program. Of a flag that is given twice, the last value counts.
pub fn try_parse<A: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<A, clap::Error> {
    let mut command = A::command().args_override_self(true);
    let matches = command.try_get_matches_from_mut(args)?;
    A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Prints what clap has to say, and returns the exit code: help and version are errors to clap, too.
pub fn refuse(error: &clap::Error) -> ExitCode {
    // A closed terminal needs no text.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        logs: LogArgs,
        #[command(flatten)]
        admin: AdminArgs,
    }

    fn program(flags: &[&str]) -> Result<Program, String> {
        let args = [&["program"], flags].concat().into_iter().map(OsString::from);
        try_parse(args).map_err(|error: clap::Error| error.to_string())
    }

    #[test]
    fn the_old_flag_for_json_still_works() {
        let format = |flags: &[&str]| program(flags).unwrap().logs.format();
        assert_eq!(format(&[]), LogFormat::Text);
        assert_eq!(format(&["--log-format", "json"]), LogFormat::Json);
        assert_eq!(format(&["--log-json"]), LogFormat::Json);
    }

    #[test]
    fn of_a_flag_that_is_given_twice_the_last_counts() {
        let args = program(&["--admin", "1", "--admin", "2", "--no-color", "--no-color"]).unwrap();
        assert_eq!(args.admin.admin.map(|admin| admin.port()), Some(2));
    }

    #[test]
    fn a_level_that_is_none_is_refused_with_those_there_are() {
        assert!(program(&["--log-level", "info,app=off"]).unwrap().logs.settings().filter.is_some());
        let error = program(&["--log-level", "loud"]).unwrap_err();
        assert!(error.contains("`loud` is neither a level (off, error, warn"), "{error}");
    }

    #[test]
    fn a_wrong_address_is_answered_with_an_example() {
        assert!(program(&["--admin", "here"]).unwrap_err().contains("such as 127.0.0.1:8080"));
    }
}
