//! The autoscaler as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    pilotlight_local::process::main()
}
