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
use tokio::sync::oneshot;
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
        default_value = "knative-serving"
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
            client: self.place.cluster.connect("pilotlight").await?,
            namespace: self.place.system_namespace,
            component: self.component,
            timeout: self.timeout,
            dry_run: self.dry_run,
        };
        // The first signal asks for the way back, the second for the end, wherever that is.
        let (ask, asked) = oneshot::channel();
        let interrupted = async { asked.await.unwrap_or_default() };
        let changing = async {
            match &image {
                Some(image) => adopt(&params, image, interrupted, tell).await,
                None => rollback(&params, interrupted, tell).await,
            }
        };
        let done = tokio::select! {
            done = changing => done,
            () = async {
                signals.next().await;
                // Err: nobody waits for it, as before the change.
                let _ = ask.send(());
                signals.next().await;
            } => {
                tell(&format!("Interrupted. `pilotlight knative status` says what is there; \
                    `pilotlight knative rollback --component {}` goes back", self.component));
                return Ok(ExitCode::from(INTERRUPTED));
            }
        };
        match done {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(AdoptError::Plan(there @ PlanError::There { .. })) => {
                tell(&there.to_string());
                Ok(ExitCode::SUCCESS)
            }
            Err(wrong @ AdoptError::Image { .. }) => Err(WrongSettings::new(wrong.to_string()).into()),
            Err(error) => Err(error.into()),
        }
    }
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
