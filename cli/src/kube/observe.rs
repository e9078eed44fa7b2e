//! Observation of a workload: pods that there would have been, beside those that there were, while nothing is scaled.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use pilotlight_config::duration;
use pilotlight_controller::crd::{Mode, RequestAutoscaler, RequestAutoscalerStatus, ScaleTargetRef};
use pilotlight_controller::refusal::{self, AtZeroSignal, Way};
use pilotlight_controller::survey::survey;
use pilotlight_process::StopSignals;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::apply::MANAGER;
use super::place::{Place, PlaceArgs};
use super::{reference, status, tell};

#[derive(Debug, Args)]
pub(super) struct ObserveArgs {
    /// Workload that is observed, such as deploy/web; it must have been enabled
    #[arg(value_name = "KIND/NAME", value_parser = reference::target)]
    target: ScaleTargetRef,
    /// How long
    #[arg(long = "for", value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    time: Duration,
    #[command(flatten)]
    place: PlaceArgs,
}

impl ObserveArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let place = self.place.connect().await?;
        let short = reference::short(&self.target);
        let all = status::list(&place.client, Some(&place.namespace)).await?;
        let of_target = |autoscaler: &RequestAutoscaler| {
            let target = &autoscaler.spec.scale_target_ref;
            target.kind == self.target.kind && target.name == self.target.name
        };
        let Some(autoscaler) = all.into_iter().find(of_target) else {
            return Err(anyhow!(
                "no RequestAutoscaler in {} scales {short}; `pilotlight kube enable {short} --mode observe` makes one that \
                 changes nothing",
                place.namespace
            ));
        };
        can_be_seen(&place, &autoscaler).await?;
        let api: Api<RequestAutoscaler> = Api::namespaced(place.client.clone(), &place.namespace);
        let name = autoscaler.name_any();
        if autoscaler.spec.mode != Mode::Observe {
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let patch = Patch::Merge(json!({"spec": {"mode": "Observe"}}));
            api.patch(&name, &params, &patch)
                .await
                .with_context(|| format!("cannot set the mode of {name}"))?;
            tell(&format!("The mode of RequestAutoscaler {name} is Observe: nothing is scaled"));
        }
        let compared = compare(&api, &name, self.time).await?;
        tell(&compared.verdict());
        tell(&format!("The mode stays Observe; `pilotlight kube enable {short} --mode act` has it scaled"));
        Ok(ExitCode::SUCCESS)
    }
}

/// Refuses a workload of which nothing is seen above zero.
async fn can_be_seen(place: &Place, autoscaler: &RequestAutoscaler) -> anyhow::Result<()> {
    let survey = survey(&place.client, &place.system_namespace, &place.namespace, autoscaler).await?;
    match refusal::way(&survey.workload, &survey.surroundings)? {
        Way::Always | Way::AtZero(AtZeroSignal::QueueProxy) => Ok(()),
        Way::AtZero(AtZeroSignal::Autoscaler | AtZeroSignal::Cpu) | Way::WakeOnly => {
            Err(anyhow!("nothing can be observed. {}", refusal::cannot_see(&survey.workload).message))
        }
    }
}

/// Follows the status once a second, and tells each change.
async fn compare(api: &Api<RequestAutoscaler>, name: &str, within: Duration) -> anyhow::Result<Compared> {
    let (mut compared, mut signals) = (Compared::default(), StopSignals::new()?);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (start, mut told) = (Instant::now(), None);
    let mut last = start;
    while start.elapsed() < within {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = signals.next() => break,
        }
        let now = Instant::now();
        let autoscaler =
            api.get(name).await.with_context(|| format!("cannot read RequestAutoscaler {name}"))?;
        let status = autoscaler.status.unwrap_or_default();
        if let Some(seen) = compared.add(now - last, &status)
            && told != Some(seen)
        {
            let why = status.last_decision.map(|last| format!(": {}", last.why)).unwrap_or_default();
            tell(&format!("  {} pods, {} would be wanted{why}", seen.0, seen.1));
            told = Some(seen);
        }
        last = now;
    }
    Ok(compared)
}

/// Pods that there were, and those that would have been.
#[derive(Debug, Default, PartialEq)]
struct Compared {
    pod_seconds: f64,
    wanted_seconds: f64,
    most: u32,
    most_wanted: u32,
}

impl Compared {
    /// Takes in a status that held for so long. Returns pods, and pods that are wanted; `None`: one of them is not known.
    fn add(&mut self, time: Duration, status: &RequestAutoscalerStatus) -> Option<(u32, u32)> {
        let (pods, wanted) = (status.replicas?, status.wanted_replicas?);
        self.pod_seconds += f64::from(pods) * time.as_secs_f64();
        self.wanted_seconds += f64::from(wanted) * time.as_secs_f64();
        self.most = self.most.max(pods);
        self.most_wanted = self.most_wanted.max(wanted);
        Some((pods, wanted))
    }

    fn verdict(&self) -> String {
        let Compared { pod_seconds, wanted_seconds, most, most_wanted } = self;
        format!(
            "There were {pod_seconds:.0} pod-seconds, at most {most} pods; there would have been {wanted_seconds:.0}, at most \
             {most_wanted} pods"
        )
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_added_up_over_time_beside_those_that_would_have_been() {
        let status = |replicas, wanted_replicas| RequestAutoscalerStatus {
            replicas,
            wanted_replicas,
            ..RequestAutoscalerStatus::default()
        };
        let mut compared = Compared::default();
        assert_eq!(compared.add(Duration::from_secs(10), &status(Some(4), Some(1))), Some((4, 1)));
        assert_eq!(compared.add(Duration::from_secs(5), &status(Some(4), Some(6))), Some((4, 6)));
        assert_eq!(compared.add(Duration::from_secs(99), &status(Some(4), None)), None);
        let expected = "There were 60 pod-seconds, at most 4 pods; there would have been 40, at most 6 pods";
        assert_eq!(compared.verdict(), expected);
    }
}
