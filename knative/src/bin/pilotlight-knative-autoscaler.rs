//! The autoscaler in the place of Knative's.

use std::process::ExitCode;

fn main() -> ExitCode {
    pilotlight_knative::autoscaler::program::main()
}
