//! The autoscaler as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    pilotlight_autoscaler::process::main()
}
