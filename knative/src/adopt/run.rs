//! Adoption and rollback from begin to end.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep};

use super::cluster::Installation;
use super::component::Component;
use super::plan::{Plan, PlanError, SeenImage, image_fault, is_ours};
use super::rollout::{Progress, StuckPod, Workload};

/// Parameters of an adoption or a rollback.
#[derive(Clone)]
pub struct AdoptParams {
    /// The cluster.
    pub client: Client,
    /// The namespace of Knative.
    pub namespace: String,
    /// The part.
    pub component: Component,
    /// How long its pods may take to become ready.
    pub timeout: Duration,
    /// Whether to show the change and leave it at that.
    pub dry_run: bool,
}

/// Why nothing was changed, or why it was taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// The image's name cannot be right.
    #[error("--image: {image:?} {rule}")]
    Image {
        /// The name.
        image: String,
        /// The rule that it breaks: a sentence whose subject is the name.
        rule: &'static str,
    },
    /// The cluster is not what it must be. One fault a line.
    #[error("{}", .0.join("\n"))]
    Cluster(Vec<String>),
    /// There is nothing to do.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The object of the part is not there.
    #[error("{component} is not there: {namespace} has no {what}")]
    NotThere {
        /// The part.
        component: Component,
        /// The namespace.
        namespace: String,
        /// The object.
        what: &'static str,
    },
    /// The API server refused, or was not reached.
    #[error("{doing}")]
    Api {
        /// What was being done.
        doing: String,
        /// Its words.
        source: Box<kube::Error>,
    },
    /// The change was made, the pods did not become ready, and the change was taken back.
    #[error("{component} {why}; {} is back", .image)]
    TakenBack {
        /// The part.
        component: Component,
        /// Why, in a sentence without a subject.
        why: String,
        /// The image that is back.
        image: String,
    },
    /// The change was made, and its pods are not ready yet.
    #[error("{component} {why}. The change stays")]
    NotReady {
        /// The part.
        component: Component,
        /// Why, in a sentence without a subject.
        why: String,
    },
    /// The change was made, and could neither be finished nor taken back.
    #[error(
        "{component} {why}, and {image} could not be put back: run `pilotlight knative rollback --component {component}`"
    )]
    Stuck {
        /// The part.
        component: Component,
        /// Why, in a sentence without a subject.
        why: String,
        /// The image that should be back.
        image: String,
        /// Why it is not.
        source: Box<kube::Error>,
    },
}

/// Puts `image` in the place of a part's image. Takes it back, and says why, if its pods do not become ready in time or
/// `interrupted` ends. `tell` gets a line for each step, and for each change of the state.
pub async fn adopt(
    params: &AdoptParams,
    image: &str,
    interrupted: impl Future<Output = ()>,
    mut tell: impl FnMut(&str),
) -> Result<(), AdoptError> {
    if let Some(rule) = image_fault(image) {
        return Err(AdoptError::Image { image: image.to_owned(), rule });
    }
    let (cluster, component) = (params.cluster(), params.component);
    let facts = cluster.facts(component).await.map_err(api("cannot read the cluster's versions"))?;
    let faults = facts.faults(component, image);
    if !faults.is_empty() {
        return Err(AdoptError::Cluster(faults));
    }
    if let Some(remark) = facts.remark() {
        tell(&remark);
    }
    let plan = Plan::adopt(component, &params.namespace, params.seen(&cluster).await?, image)?;
    let (why, unwell) = match params.carry_out(&cluster, &plan, interrupted, &mut tell).await? {
        Ending::Done => return Ok(()),
        Ending::Failed { why, unwell } => (why, unwell),
    };
    let undo = plan.undo();
    let image = undo.to.clone();
    tell(&format!("{component} {why}; putting {image} back"));
    match cluster.apply(&undo).await {
        Ok(()) => {
            // Whether the pods of before are back is told; the adoption has failed in either case.
            let _ = params.watch(&cluster, &undo, &unwell, &mut tell).await;
            Err(AdoptError::TakenBack { component, why, image })
        }
        Err(source) => Err(AdoptError::Stuck { component, why, image, source: Box::new(source) }),
    }
}

/// Puts the former image of a part back. What goes wrong is told, and nothing is taken back: Knative's own image is where
/// all else leads back to.
pub async fn rollback(
    params: &AdoptParams,
    interrupted: impl Future<Output = ()>,
    mut tell: impl FnMut(&str),
) -> Result<(), AdoptError> {
    let cluster = params.cluster();
    let plan = Plan::rollback(params.component, &params.namespace, params.seen(&cluster).await?)?;
    match params.carry_out(&cluster, &plan, interrupted, &mut tell).await? {
        Ending::Done => Ok(()),
        Ending::Failed { why, .. } => Err(AdoptError::NotReady { component: params.component, why }),
    }
}

/// A line for each part: whose it is, with its image and its pods.
pub async fn status(client: &Client, namespace: &str) -> Result<Vec<String>, AdoptError> {
    let cluster = Installation { client: client.clone(), namespace: namespace.to_owned() };
    let mut lines = Vec::new();
    for component in Component::ALL {
        let seen = cluster.seen(component).await.map_err(api(format!("cannot read {component}")))?;
        let Some(seen) = seen else {
            lines.push(format!("{component:<12} not there"));
            continue;
        };
        let whose = if is_ours(&seen.image) || seen.former.is_some() { "Pilotlight's" } else { "Knative's" };
        let workloads = cluster.workloads(component, &seen.image).await;
        let workloads = workloads.map_err(api(format!("cannot read the pods of {component}")))?;
        let progress = Progress::of(workloads, &BTreeSet::new());
        lines.push(format!("{component:<12} {whose:<13} {}", seen.image));
        lines.push(format!("{:<12} {:<13} {}", "", "", progress.line));
        if let Some(former) = seen.former {
            lines.push(format!("{:<12} {:<13} in the place of {former}", "", ""));
        }
    }
    Ok(lines)
}

/// How a change ended.
enum Ending {
    Done,
    Failed {
        /// Why, in a sentence without a subject.
        why: String,
        /// Workloads that were not well before the change.
        unwell: BTreeSet<String>,
    },
}

impl AdoptParams {
    fn cluster(&self) -> Installation {
        Installation { client: self.client.clone(), namespace: self.namespace.clone() }
    }

    async fn seen(&self, cluster: &Installation) -> Result<SeenImage, AdoptError> {
        let component = self.component;
        let seen =
            cluster.seen(component).await.map_err(api(format!("cannot read the image of {component}")))?;
        seen.ok_or_else(|| AdoptError::NotThere {
            component,
            namespace: self.namespace.clone(),
            what: match component {
                Component::QueueProxy => "ConfigMap config-deployment with the key queue-sidecar-image",
                Component::Activator | Component::Autoscaler => "Deployment and container of this name",
            },
        })
    }

    async fn carry_out(
        &self,
        cluster: &Installation,
        plan: &Plan,
        interrupted: impl Future<Output = ()>,
        tell: &mut impl FnMut(&str),
    ) -> Result<Ending, AdoptError> {
        plan.lines().iter().for_each(|line| tell(line));
        if self.dry_run {
            tell("Nothing was changed (--dry-run).");
            return Ok(Ending::Done);
        }
        let component = self.component;
        let read = |what: &str| api(format!("cannot read the pods of {component} {what}"));
        let before = cluster.workloads(component, &plan.to).await.map_err(read("before the change"))?;
        let unwell: BTreeSet<String> =
            before.iter().filter(|workload| !workload.is_well()).map(Workload::id).collect();
        // A Deployment of Knative's own is what this is about, however it is.
        let unwell = if component == Component::QueueProxy { unwell } else { BTreeSet::new() };
        for id in &unwell {
            tell(&format!("{id} is not well already, and is not waited for"));
        }
        cluster.apply(plan).await.map_err(api(format!("cannot change {}", plan.object())))?;
        let watched = tokio::select! {
            watched = self.watch(cluster, plan, &unwell, tell) => watched,
            () = interrupted => Err("was interrupted".to_owned()),
        };
        Ok(match watched {
            Ok(()) => {
                tell(&format!("{component} is {} now", plan.to));
                Ending::Done
            }
            Err(why) => Ending::Failed { why, unwell },
        })
    }

    /// Watches the pods of a change until they are ready. Err: why they are not, in a sentence without a subject.
    async fn watch(
        &self,
        cluster: &Installation,
        plan: &Plan,
        unwell: &BTreeSet<String>,
        tell: &mut impl FnMut(&str),
    ) -> Result<(), String> {
        let deadline = Instant::now() + self.timeout;
        let mut told = String::new();
        loop {
            // The API server may be away for a moment: the deadline decides.
            let (line, troubles) = match cluster.workloads(self.component, &plan.to).await {
                Ok(workloads) => {
                    let progress = Progress::of(workloads, unwell);
                    if progress.is_done() {
                        tell(&progress.line);
                        return Ok(());
                    }
                    let troubles = self.troubles(cluster, &progress, &plan.to).await;
                    (progress.line, troubles)
                }
                Err(error) => (format!("the API server does not answer: {error}"), Vec::new()),
            };
            if line != told {
                tell(&line);
                told = line;
            }
            let hopeless = troubles.iter().find(|trouble| trouble.is_hopeless);
            if hopeless.is_some() || Instant::now() >= deadline {
                let late = match hopeless {
                    Some(_) => "cannot become ready".to_owned(),
                    None => format!("did not become ready within {}", humantime(self.timeout)),
                };
                let Some(trouble) = hopeless.or(troubles.first()) else {
                    return Err(format!("{late} ({told})"));
                };
                let words = cluster.last_words(trouble).await;
                let words = words.map(|words| format!("; its last line: {words}")).unwrap_or_default();
                return Err(format!("{late}: {}{words}", trouble.line()));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn troubles(&self, cluster: &Installation, progress: &Progress, image: &str) -> Vec<StuckPod> {
        let mut troubles = Vec::new();
        for workload in progress.waiting.iter().filter(|workload| workload.has_image).take(MOST_ASKED) {
            // An error costs only the reason.
            troubles.extend(cluster.troubles(workload, image).await.unwrap_or_default());
        }
        troubles
    }
}

fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> AdoptError {
    let doing = doing.into();
    move |source| AdoptError::Api { doing, source: Box::new(source) }
}

/// `3m`, `90s`: a time as it is written on the command line.
fn humantime(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        _ => format!("{}s", time.as_secs_f64()),
    }
}

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The most workloads whose pods are looked at in one round.
const MOST_ASKED: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_they_are_written() {
        let told = |millis| humantime(Duration::from_millis(millis));
        assert_eq!([told(180_000), told(90_000), told(1500)], ["3m", "90s", "1.5s"]);
    }
}
