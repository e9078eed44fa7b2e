//! `pilotlight kube`: workloads of plain Kubernetes, scaled by their requests.

mod apply;
mod disable;
mod doctor;
mod enable;
mod explain;
mod inject;
mod install;
mod observe;
mod place;
mod reference;
mod selectors;
mod status;
mod uninstall;
mod wait;

use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use pilotlight_controller::data::program::{self as activator, DataArgs};
use pilotlight_controller::leader::program::{self as controller, LeaderArgs};
use pilotlight_controller::refusal::look::LookError;
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
    Explain(explain::KubeExplainArgs),
    /// Say what stands in the way: rights, policies, other autoscalers, data planes
    Doctor(doctor::DoctorArgs),
    /// Scale nothing, and say what would have been done beside what was done
    Observe(observe::ObserveArgs),
    /// Add the queue-proxy to the pods of a manifest, and a pause for its drain
    Inject(inject::InjectArgs),
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
        KubeCommand::Inject(args) => args.run(),
    };
    end(result.map_err(plain), Format::Text)
}

/// Prints a line. What is under way is carried through even if nobody reads.
fn tell(line: &str) {
    if let Err(error) = print(&format!("{line}\n")) {
        warn!(%error, "Cannot write to standard output");
    }
}

/// The same error with the API server's own words alone, where the client has them twice and with all fields.
fn plain(error: anyhow::Error) -> anyhow::Error {
    let mut told = Vec::new();
    for cause in error.chain() {
        let boxed = || Some(&**cause.downcast_ref::<Box<::kube::Error>>()?);
        let looked = || match cause.downcast_ref::<LookError>()? {
            LookError::Api(error) => Some(&**error),
            _ => None,
        };
        if let Some(::kube::Error::Api(status)) =
            cause.downcast_ref::<::kube::Error>().or_else(boxed).or_else(looked)
        {
            told.push(format!("{} ({})", status.message, status.code));
            return anyhow!(told.join(": "));
        }
        told.push(cause.to_string());
    }
    error
}

#[cfg(test)]
mod tests {
    use ::kube::core::Status;
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_api_servers_words_are_told_once() {
        let refused = || ::kube::Error::Api(Box::new(Status::failure("no", "Forbidden").with_code(403)));
        let told = |error: anyhow::Error| format!("{:#}", plain(error));
        let direct = Err::<(), _>(refused()).context("cannot read Services").unwrap_err();
        assert_eq!(told(direct), "cannot read Services: no (403)");
        let looked = Err::<(), _>(LookError::Api(Box::new(refused()))).context("cannot look").unwrap_err();
        assert_eq!(told(looked), "cannot look: no (403)");
        assert_eq!(told(anyhow!("else").context("something")), "something: else");
    }
}
