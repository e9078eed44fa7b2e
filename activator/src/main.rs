//! The activator as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    pilotlight_activator::main()
}
