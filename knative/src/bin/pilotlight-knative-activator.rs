//! The activator of a cluster as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    pilotlight_knative::activator::main()
}
