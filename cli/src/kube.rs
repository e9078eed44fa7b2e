//! `pilotlight kube`: workloads of plain Kubernetes, scaled by their requests.

mod apply;
mod disable;
mod doctor;
mod enable;
mod explain;
mod install;
mod observe;
mod place;
mod reference;
mod selectors;
mod status;
mod uninstall;
mod wait;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use pilotlight_controller::data::program::{self as activator, DataArgs};
use pilotlight_controller::leader::program::{self as controller, LeaderArgs};
use pilotlight_process::end;
use tracing::warn;

use crate::block_on;
use crate::logging::Format;
use crate::output::print;

/// Scale any Deployment and its Service by their requests, down to zero and back
#[derive(Debug, Args)]
pub struct KubeArgs {
    #[command(subcommand)]
    command: KubeCommand,
}

#[derive(Debug, Subcommand)]
enum KubeCommand {
    /// Put Pilotlight on a cluster, or print what would be put there
    Install(install::InstallArgs),
    /// Restore everything, and take Pilotlight off a cluster
    Uninstall(uninstall::UninstallArgs),
    /// Have a workload scaled by its requests
    Enable(Box<enable::EnableArgs>),
    /// Leave a workload alone again
    Disable(disable::DisableArgs),
    /// List what is scaled
    Status(status::StatusArgs),
    /// Say why a workload has as many pods as it has
    Explain(explain::ExplainArgs),
    /// Say what stands in the way: rights, policies, other autoscalers, data planes
    Doctor(doctor::DoctorArgs),
    /// Scale nothing, and say what would have been done beside what was done
    Observe(observe::ObserveArgs),
    /// Decide about workloads, and lead their traffic: one of the two programs of an installation
    Controller(Box<LeaderArgs>),
    /// Hold requests while pods come up, count and forward them: the other program of an installation
    Activator(Box<DataArgs>),
}

/// Runs the command.
pub fn run(args: KubeArgs) -> ExitCode {
    let result = match args.command {
        KubeCommand::Controller(args) => return controller::run(&args),
        KubeCommand::Activator(args) => return activator::run(&args),
        KubeCommand::Install(args) => block_on(args.run()),
        KubeCommand::Uninstall(args) => block_on(args.run()),
        KubeCommand::Enable(args) => block_on(args.run()),
        KubeCommand::Disable(args) => block_on(args.run()),
        KubeCommand::Status(args) => block_on(args.run()),
        KubeCommand::Explain(args) => block_on(args.run()),
        KubeCommand::Doctor(args) => block_on(args.run()),
        KubeCommand::Observe(args) => block_on(args.run()),
    };
    end(result, Format::Text)
}

/// Prints a line. What is under way is carried through even if nobody reads.
fn tell(line: &str) {
    if let Err(error) = print(&format!("{line}\n")) {
        warn!(%error, "Cannot write to standard output");
    }
}
