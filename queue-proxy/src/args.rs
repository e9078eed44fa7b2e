//! The queue-proxy's flags. There is one queue-proxy in every pod, so a table of five takes the place of clap, whose
//! pages would stay in each one's memory.

use std::net::SocketAddr;

use pilotlight_config::process::variables;
use pilotlight_process::{LogFormat, LogSettings, WrongSettings, address};

/// The flags of a queue-proxy that serves, or checks its settings.
#[derive(Debug, Default)]
pub(crate) struct QueueProxyArgs {
    /// The admin port; `None`: that of the environment.
    pub(crate) admin: Option<SocketAddr>,
    /// `None`: that of the environment.
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) logs: LogSettings,
    /// Whether to stop after the check.
    pub(crate) only_checks: bool,
}

/// The request of a command line.
#[derive(Debug)]
pub(crate) enum Asked {
    Serve(QueueProxyArgs),
    /// A text to print: help or version.
    Text(String),
}

/// Reads the arguments behind the program's name.
pub(crate) fn parse(program: &str, args: impl IntoIterator<Item = String>) -> Result<Asked, WrongSettings> {
    let mut args = args.into_iter();
    let mut parsed = QueueProxyArgs::default();
    while let Some(arg) = args.next() {
        let (flag, written) = match arg.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let mut value = || {
            let value = written.clone().or_else(|| args.next());
            value.ok_or_else(|| usage(program, &format!("a value is required for '{flag}'")))
        };
        let wrong = |value: &str, error: &dyn std::fmt::Display| {
            usage(program, &format!("invalid value '{value}' for '{flag}': {error}"))
        };
        match flag {
            "-h" | "--help" => return Ok(Asked::Text(help(program))),
            "-V" | "--version" => return Ok(Asked::Text(format!("{program} {VERSION}\n"))),
            "--check-config" if written.is_none() => parsed.only_checks = true,
            "--admin" => {
                let value = value()?;
                parsed.admin = Some(address(&value).map_err(|error| wrong(&value, &error))?);
            }
            "--no-color" if written.is_none() => parsed.logs.no_color = true,
            "--log-format" => {
                let value = value()?;
                parsed.log_format = Some(value.parse().map_err(|error| wrong(&value, &error))?);
            }
            "--log-level" => {
                let value = value()?;
                parsed.logs.filter = Some(value.parse().map_err(|error| wrong(&value, &error))?);
            }
            _ => return Err(usage(program, &format!("unexpected argument '{arg}'"))),
        }
    }
    Ok(Asked::Serve(parsed))
}

fn usage(program: &str, fault: &str) -> WrongSettings {
    WrongSettings::new(format!("{fault}\n  (try '{program} --help')"))
}

fn help(program: &str) -> String {
    let variables = variables::help(&[
        variables::QUEUE_PROXY,
        variables::QUEUE_PROXY_PLACES,
        variables::QUEUE_PROXY_TLS,
        variables::LOGS,
        variables::TELEMETRY,
    ]);
    format!("{ABOUT}\n\nUsage: {program} [OPTIONS]\n\n{OPTIONS}\n\n{variables}\n")
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

const ABOUT: &str = "\
Stand in front of one app in its pod: count and limit its requests, probe it, drain it

Its settings are environment variables, which Knative's controller sets.";

const OPTIONS: &str = "\
Options:
      --admin <ADDRESS>
          Address of the admin port: /wait-for-drain, /healthz, /readyz [default: PILOTLIGHT_BIND_ADDRESS and
          PILOTLIGHT_ADMIN_PORT]
      --check-config
          Check all settings (flags, environment, files), say what is in force, and end; nothing is started
      --log-format <FORMAT>
          Form of log lines [env: PILOTLIGHT_LOG_FORMAT] [default: text] [possible values: text, json]
      --log-level <LEVEL>
          Log lines to write: off, error, warn, info, debug or trace, or levels by target as in info,app=off. Without
          this flag RUST_LOG says so, then SERVING_LOGGING_LEVEL [default: info]
      --no-color
          No colours, even on a terminal. NO_COLOR says the same
  -h, --help
          Print help
  -V, --version
          Print version";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Asked, String> {
        parse("queue-proxy", args.iter().map(|arg| (*arg).to_owned())).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_read_with_their_values_behind_or_after_an_equals_sign() {
        let args =
            ["--admin=127.0.0.1:1", "--log-format", "json", "--log-level=info,app=off", "--check-config"];
        let Ok(Asked::Serve(args)) = parsed(&args) else { panic!("legal flags") };
        assert_eq!(args.admin.map(|address| address.port()), Some(1));
        assert_eq!(args.log_format, Some(LogFormat::Json));
        assert!(args.logs.filter.is_some() && args.only_checks);
        assert!(
            matches!(parsed(&[]), Ok(Asked::Serve(args)) if !args.only_checks && args.log_format.is_none())
        );
    }

    #[test]
    fn a_slip_is_named_and_the_help_pointed_at() {
        for (args, fault) in [
            (
                &["--log-format", "yaml"][..],
                "invalid value 'yaml' for '--log-format': `yaml` is neither text nor json",
            ),
            (&["--log-level"], "a value is required for '--log-level'"),
            (&["--admin", "here"], "invalid value 'here' for '--admin': an address is IP:PORT"),
            (&["serve"], "unexpected argument 'serve'"),
            (&["--check-config=yes"], "unexpected argument '--check-config=yes'"),
        ] {
            let error = parsed(args).unwrap_err();
            assert!(error.starts_with(fault) && error.ends_with("(try 'queue-proxy --help')"), "{error}");
        }
    }

    #[test]
    fn help_lists_every_flag_and_every_variable() {
        let Ok(Asked::Text(help)) = parsed(&["--admin", "127.0.0.1:1", "--help"]) else { panic!("help") };
        for word in
            ["--admin", "--check-config", "--log-format", "--log-level", "CONTAINER_CONCURRENCY", "RUST_LOG"]
        {
            assert!(help.contains(word), "{word}");
        }
        assert!(matches!(parsed(&["-V"]), Ok(Asked::Text(text)) if text.starts_with("queue-proxy ")));
    }
}
