//! How a program ends: the one way to print why it failed, and its exit code.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it failed |
//! | 2 | the command line, a file or a variable is wrong, and nothing has been started |
//! | 130 | a second signal interrupted `run` or `demo` |

use std::error::Error;
use std::process::ExitCode;

use tracing::error;

use crate::logs::{LogFormat, flush_logs};
use crate::wrong::{WrongSettings, chain};

/// The program failed.
pub const FAILURE: u8 = 1;
/// The command line or the settings are wrong, and nothing has been started. clap uses the same code.
pub const USAGE: u8 = 2;
/// A second signal interrupted a graceful stop: a shell's code for Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Ends a program: writes the last log lines, prints why it failed, if it did, and chooses the exit code.
pub fn end<E>(result: Result<ExitCode, E>, format: LogFormat) -> ExitCode
where
    E: AsRef<dyn Error + Send + Sync + 'static>,
{
    let code = result.unwrap_or_else(|error| fail(error.as_ref(), format));
    flush_logs();
    code
}

/// Prints why a program failed, and returns its exit code: 2 for [`WrongSettings`], otherwise 1.
///
/// People read `error: ` in front of every fault, and the causes behind it, each once. Where the log is JSON, so is
/// each fault: a line of the log.
pub fn fail(failure: &(dyn Error + 'static), format: LogFormat) -> ExitCode {
    let text = chain(failure);
    match format {
        LogFormat::Text => {
            flush_logs();
            eprintln!("{}", for_people(&text));
        }
        LogFormat::Json => text.lines().for_each(|fault| error!(error = fault, "Failed")),
    }
    ExitCode::from(code_of(failure))
}

/// Prints the result of `--check-config`: the settings are valid, and these lines say what is in force.
pub fn print_valid(in_force: &[String]) -> ExitCode {
    println!("configuration is valid");
    in_force.iter().for_each(|line| println!("{line}"));
    ExitCode::SUCCESS
}

/// Every fault with `error: ` in front. Lines that are indented go on with the fault before them.
fn for_people(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let goes_on = line.is_empty() || line.starts_with(char::is_whitespace);
        format!("{}{line}", if goes_on { "" } else { "error: " })
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn code_of(failure: &(dyn Error + 'static)) -> u8 {
    let mut causes = std::iter::successors(Some(failure), |&cause| cause.source());
    if causes.any(<dyn Error>::is::<WrongSettings>) { USAGE } else { FAILURE }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn every_fault_has_a_prefix_and_indented_lines_belong_to_the_one_before() {
        assert_eq!(for_people("a\n    ^\nb"), "error: a\n    ^\nerror: b");
    }

    #[test]
    fn wrong_settings_end_with_2_however_deep_and_all_else_with_1() {
        let code = |error: anyhow::Error| code_of(error.as_ref());
        assert_eq!(code(WrongSettings::new("a").into()), USAGE);
        assert_eq!(code(anyhow!(WrongSettings::new("a")).context("b").context("c")), USAGE);
        assert_eq!(code(anyhow!("a").context("b")), FAILURE);
    }
}
