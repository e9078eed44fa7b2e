//! Why a workload has as many pods as it has, in plain words.

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pilotlight_config::spelling::hint;
use pilotlight_controller::crd::{Mode, RequestAutoscaler, RequestAutoscalerStatus, Signal, TrafficPath};

use super::place::{Place, PlaceArgs};
use super::{reference, status};
use crate::output::print;

#[derive(Debug, Args)]
pub(super) struct KubeExplainArgs {
    /// The RequestAutoscaler, or what it scales, such as web or deploy/web
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
}

impl KubeExplainArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let place = self.place.connect().await?;
        let all = status::list(&place.client, Some(&place.namespace)).await?;
        let name = self.name.rsplit('/').next().unwrap_or_default();
        let is_named = |autoscaler: &&RequestAutoscaler| {
            autoscaler.name_any() == name || autoscaler.spec.scale_target_ref.name == name
        };
        let Some(autoscaler) = all.iter().find(is_named) else {
            let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
            let hint = hint(name, names.iter().map(String::as_str));
            return Err(anyhow!("no RequestAutoscaler {name} in {}{hint}", place.namespace));
        };
        let events = events(&place, &autoscaler.name_any()).await?;
        print(&told(autoscaler, &events))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The last events about a RequestAutoscaler, oldest first.
async fn events(place: &Place, name: &str) -> anyhow::Result<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(place.client.clone(), &place.namespace);
    let fields = format!("involvedObject.kind=RequestAutoscaler,involvedObject.name={name}");
    let listed = api.list(&ListParams::default().fields(&fields)).await.context("cannot read events")?;
    let is_about = |event: &Event| {
        let object = &event.involved_object;
        object.kind.as_deref() == Some("RequestAutoscaler") && object.name.as_deref() == Some(name)
    };
    let mut events: Vec<Event> = listed.items.into_iter().filter(is_about).collect();
    events.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
    Ok(events.split_off(events.len().saturating_sub(MOST_EVENTS)))
}

fn told(autoscaler: &RequestAutoscaler, events: &[Event]) -> String {
    let name = autoscaler.name_any();
    let mut lines = vec![format!("{name} scales {}", reference::short(&autoscaler.spec.scale_target_ref))];
    match &autoscaler.status {
        None => lines.push(
            "  The controller has not seen it yet; `pilotlight kube doctor` says whether it runs".to_owned(),
        ),
        Some(status) => {
            lines.extend(state(autoscaler, status).into_iter().map(|line| format!("  {line}")));
            for condition in &status.conditions {
                lines.push(format!(
                    "  {}: {} ({}). {}",
                    condition.type_, condition.status, condition.reason, condition.message
                ));
            }
        }
    }
    if !events.is_empty() {
        lines.push("What happened last:".to_owned());
    }
    for event in events {
        let time = event.last_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let again = event
            .count
            .filter(|count| *count > 1)
            .map(|count| format!(" ({count} times)"))
            .unwrap_or_default();
        lines.push(format!("  {time}  {}{again}  {}", text(&event.reason), text(&event.message)));
    }
    lines.join("\n") + "\n"
}

fn state(autoscaler: &RequestAutoscaler, status: &RequestAutoscalerStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let pods = |number: Option<u32>| match number {
        Some(1) => "1 pod".to_owned(),
        Some(number) => format!("{number} pods"),
        None => "an unknown number of pods".to_owned(),
    };
    lines.push(format!(
        "{} asked for, {} ready, {} wanted{}",
        pods(status.replicas),
        status.ready_replicas.unwrap_or(0),
        status.wanted_replicas.map_or("?".to_owned(), |wanted| wanted.to_string()),
        if status.panicking { "; the load is a panic: nothing is lowered" } else { "" }
    ));
    if let Some(in_flight) = status.in_flight {
        lines.push(format!("{in_flight:.1} requests in flight over the stable window"));
    }
    match &status.last_decision {
        Some(last) => lines.push(format!(
            "Last change, at {}: {} to {} by {}: {}",
            last.time.0, last.from, last.to, last.rule, last.why
        )),
        None => lines.push("The number of pods was not changed yet".to_owned()),
    }
    match status.path {
        Some(TrafficPath::Activator) => lines.push("Requests go through the activators".to_owned()),
        Some(TrafficPath::Pods) => lines.push("Requests go straight to the pods".to_owned()),
        None => {}
    }
    match status.signal {
        Some(Signal::Activators) => lines.push("The activators see every request".to_owned()),
        Some(Signal::QueueProxy) => lines.push("The queue-proxies in the pods see every request".to_owned()),
        Some(Signal::Autoscaler) => {
            lines.push("A HorizontalPodAutoscaler holds the number of pods above zero".to_owned());
        }
        None => {}
    }
    match autoscaler.spec.mode {
        Mode::Act => {}
        Mode::Observe => lines.push("Nothing is scaled: the mode is Observe".to_owned()),
        Mode::Paused => lines.push("Nothing is woken: the mode is Paused".to_owned()),
    }
    for (port, number) in &status.ports {
        lines.push(format!("Port {port} is {number} at the activators"));
    }
    lines
}

const MOST_EVENTS: usize = 10;
