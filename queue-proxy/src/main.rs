//! The queue-proxy as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    pilotlight_queue_proxy::main()
}
