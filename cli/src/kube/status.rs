//! The list of what is scaled.

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use pilotlight_controller::crd::{RequestAutoscaler, TrafficPath};

use super::place::PlaceArgs;
use crate::columns::{pad, width};
use crate::output::print;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// List those of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// A table, or the objects as JSON
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Output,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

impl StatusArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let place = self.place.connect().await?;
        let namespace = (!self.all_namespaces).then_some(place.namespace.as_str());
        let autoscalers = list(&place.client, namespace).await?;
        if self.output == Output::Json {
            print(&format!("{}\n", serde_json::to_string_pretty(&autoscalers)?))?;
            return Ok(ExitCode::SUCCESS);
        }
        if autoscalers.is_empty() {
            let place = namespace.map_or("any namespace".to_owned(), |name| format!("namespace {name}"));
            print(&format!(
                "No RequestAutoscaler in {place}; `pilotlight kube enable deploy/NAME` makes one\n"
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        print(&table(&autoscalers, self.all_namespaces))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// RequestAutoscalers of a namespace, or of all.
pub(super) async fn list(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<RequestAutoscaler>> {
    let api: Api<RequestAutoscaler> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err(anyhow!("Pilotlight is not on this cluster; `pilotlight kube install` puts it there"))
        }
        Err(error) => Err(error).context("cannot read RequestAutoscalers"),
    }
}

fn table(autoscalers: &[RequestAutoscaler], with_namespaces: bool) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    for autoscaler in autoscalers {
        let status = autoscaler.status.clone().unwrap_or_default();
        let count = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
        rows.push(vec![
            autoscaler.namespace().unwrap_or_default(),
            autoscaler.name_any(),
            super::reference::short(&autoscaler.spec.scale_target_ref),
            count(autoscaler.spec.min_replicas),
            count(autoscaler.spec.max_replicas),
            count(status.replicas),
            count(status.ready_replicas),
            count(status.wanted_replicas),
            status.in_flight.map_or("-".to_owned(), |number| format!("{number:.1}")),
            match status.path {
                Some(TrafficPath::Activator) => "activator".to_owned(),
                Some(TrafficPath::Pods) => "pods".to_owned(),
                None => "-".to_owned(),
            },
            state(autoscaler),
        ]);
    }
    if !with_namespaces {
        rows.iter_mut().for_each(|row| drop(row.remove(0)));
    }
    let columns = rows[0].len();
    let widths: Vec<usize> =
        (0..columns).map(|at| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| pad(cell, *width, true));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// The gravest thing about it, in a word: the reason of a condition that is not as it should be, or `ok`.
fn state(autoscaler: &RequestAutoscaler) -> String {
    let Some(status) = &autoscaler.status else { return "not seen yet".to_owned() };
    let is_seen = status.observed_generation >= autoscaler.metadata.generation;
    let condition = |name: &str| status.conditions.iter().find(|condition| condition.type_ == name);
    let wrong = ["Accepted", "Intercepting", "Ready"]
        .into_iter()
        .filter_map(condition)
        .find(|condition| condition.status == "False");
    let blocked = condition("ZeroBlocked").filter(|condition| condition.status == "True");
    match wrong.or(blocked) {
        Some(condition) => condition.reason.clone(),
        None if !is_seen => "not seen yet".to_owned(),
        None => "ok".to_owned(),
    }
}

const HEAD: [&str; 11] = [
    "NAMESPACE",
    "NAME",
    "TARGET",
    "MIN",
    "MAX",
    "REPLICAS",
    "READY",
    "WANTED",
    "IN-FLIGHT",
    "PATH",
    "STATE",
];
