//! `pilotlight knative`: our parts in the place of Knative's on a cluster, and the programs that they are.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use pilotlight_config::duration;
use pilotlight_knative::ClusterArgs;
use pilotlight_knative::activator::{self, KnativeActivatorArgs};
use pilotlight_knative::adopt::{AdoptError, AdoptParams, Component, PlanError, adopt, rollback, status};
use pilotlight_knative::autoscaler::program::{self as autoscaler, KnativeAutoscalerArgs};
use pilotlight_process::{INTERRUPTED, StopSignals, WrongSettings, end};
use tracing::warn;

use crate::block_on;
use crate::logging::Format;
use crate::output::print;

/// Put Pilotlight's parts in the place of Knative's on a cluster, one at a time
#[derive(Debug, Args)]
pub struct KnativeArgs {
    #[command(subcommand)]
    command: KnativeCommand,
}

#[derive(Debug, Subcommand)]
enum KnativeCommand {
    /// Put an image in the place of a part's; take it back if its pods do not become ready
    Adopt(AdoptArgs),
    /// Put the image back that a part had before
    Rollback(RollbackArgs),
    /// Say whose each part is
    Status(WhereArgs),
    Activator(Box<KnativeActivatorArgs>),
    Autoscaler(Box<KnativeAutoscalerArgs>),
}

#[derive(Debug, Args)]
struct AdoptArgs {
    /// The image, such as registry.example/pilotlight-activator:0.1.0
    #[arg(long, value_name = "IMAGE")]
    image: String,
    #[command(flatten)]
    change: RollbackArgs,
}

#[derive(Debug, Args)]
struct RollbackArgs {
    /// The part
    #[arg(long, value_name = "COMPONENT")]
    component: Component,
    /// Show the change, and make none
    #[arg(long)]
    dry_run: bool,
    /// How long the new pods may take to become ready
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    place: WhereArgs,
}

#[derive(Debug, Args)]
struct WhereArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Namespace of Knative Serving
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "SYSTEM_NAMESPACE",
        hide_env_values = true,
        default_value = SYSTEM_NAMESPACE
    )]
    system_namespace: String,
}

/// Runs the command.
pub fn run(args: KnativeArgs) -> ExitCode {
    let result = match args.command {
        KnativeCommand::Activator(args) => return activator::run(&args),
        KnativeCommand::Autoscaler(args) => return autoscaler::run(&args),
        KnativeCommand::Adopt(AdoptArgs { image, change }) => block_on(change.carry_out(Some(image))),
        KnativeCommand::Rollback(change) => block_on(change.carry_out(None)),
        KnativeCommand::Status(place) => block_on(place.status()),
    };
    end(result, Format::Text)
}

impl RollbackArgs {
    /// An adoption of the image, or a rollback without one.
    async fn carry_out(self, image: Option<String>) -> anyhow::Result<ExitCode> {
        let mut signals = StopSignals::new()?;
        let params = AdoptParams {
            rollback_command: self.rollback_command(),
            client: self.place.cluster.connect("pilotlight").await?,
            namespace: self.place.system_namespace,
            component: self.component,
            timeout: self.timeout,
            dry_run: self.dry_run,
        };
        let interrupted = async || {
            signals.next().await;
        };
        let done = match &image {
            Some(image) => adopt(&params, image, interrupted, tell).await,
            None => rollback(&params, interrupted, tell).await,
        };
        match done {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(AdoptError::Plan(there @ PlanError::There { .. })) => {
                tell(&there.to_string());
                Ok(ExitCode::SUCCESS)
            }
            Err(error) if error.is_interruption() => {
                tell(&error.to_string());
                Ok(ExitCode::from(INTERRUPTED))
            }
            Err(wrong @ AdoptError::Image { .. }) => Err(WrongSettings::new(wrong.to_string()).into()),
            Err(error) => Err(error.into()),
        }
    }
}

impl RollbackArgs {
    /// The command that puts the former image of this part back, in this cluster.
    fn rollback_command(&self) -> String {
        let mut words = vec!["pilotlight".to_owned(), "knative".to_owned(), "rollback".to_owned()];
        words.extend(["--component".to_owned(), self.component.to_string()]);
        words.extend(self.place.cluster.words());
        if self.place.system_namespace != SYSTEM_NAMESPACE {
            words.extend(["--system-namespace".to_owned(), self.place.system_namespace.clone()]);
        }
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if word.bytes().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

impl WhereArgs {
    async fn status(self) -> anyhow::Result<ExitCode> {
        let client = self.cluster.connect("pilotlight").await?;
        status(&client, &self.system_namespace).await?.iter().for_each(|line| tell(line));
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints a line. A change is carried through even if nobody reads.
fn tell(line: &str) {
    if let Err(error) = print(&format!("{line}\n")) {
        warn!(%error, "Cannot write to standard output");
    }
}

const SYSTEM_NAMESPACE: &str = "knative-serving";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: RollbackArgs,
    }

    #[test]
    fn the_command_that_goes_back_names_the_same_cluster() {
        let command = |flags: &[&str]| {
            let flags = [&["p", "--component", "activator"], flags].concat();
            Program::try_parse_from(flags).unwrap_or_else(|error| panic!("{error}")).args.rollback_command()
        };
        assert_eq!(command(&["--timeout", "9m"]), "pilotlight knative rollback --component activator");
        assert_eq!(
            command(&["--context", "it's mine", "--kubeconfig", "/a/b", "--system-namespace", "other"]),
            r"pilotlight knative rollback --component activator --context 'it'\''s mine' --kubeconfig /a/b --system-namespace other"
        );
    }
}
