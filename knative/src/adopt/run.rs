//! Adoption and rollback from begin to end.

use std::collections::BTreeSet;
use std::pin::pin;
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
    /// The command that puts the former image back by hand.
    pub rollback_command: String,
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
    /// A signal came before the change. Nothing was changed.
    #[error("{component} was not changed: the command was interrupted before that")]
    Unchanged {
        /// The part.
        component: Component,
    },
    /// The change was made, the pods did not become ready, and the change was taken back.
    #[error("{component} {why}; {} is back", .image)]
    TakenBack {
        /// The part.
        component: Component,
        /// Why, in a sentence without a subject.
        why: String,
        /// Whether a signal is why.
        is_interrupted: bool,
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
        /// Whether a signal is why.
        is_interrupted: bool,
    },
    /// A second signal came while the API server was to make a change, or to take it back.
    #[error("{component} was interrupted twice, and may have either image: run `{command}`")]
    Abandoned {
        /// The part.
        component: Component,
        /// The command that puts the former image back.
        command: String,
    },
    /// The change was made, and could neither be finished nor taken back.
    #[error("{component} {why}, and {image} could not be put back: run `{command}`")]
    Stuck {
        /// The part.
        component: Component,
        /// Why, in a sentence without a subject.
        why: String,
        /// The image that should be back.
        image: String,
        /// The command that puts it back.
        command: String,
        /// Why it is not.
        source: Box<kube::Error>,
    },
}

impl AdoptError {
    /// Whether a signal is why the command did not do what it was to do.
    pub fn is_interruption(&self) -> bool {
        match self {
            AdoptError::Unchanged { .. } | AdoptError::Abandoned { .. } => true,
            AdoptError::TakenBack { is_interrupted, .. } | AdoptError::NotReady { is_interrupted, .. } => {
                *is_interrupted
            }
            _ => false,
        }
    }
}

/// Puts `image` in the place of a part's image. Takes it back, and says why, if its pods do not become ready in time.
/// `tell` gets a line for each step, and for each change of the state.
///
/// `interrupted` returns with the next signal. One that comes before the change ends the command; after it, the first
/// takes the change back, and the second ends the command wherever it is.
pub async fn adopt(
    params: &AdoptParams,
    image: &str,
    mut interrupted: impl AsyncFnMut(),
    mut tell: impl FnMut(&str),
) -> Result<(), AdoptError> {
    if let Some(rule) = image_fault(image) {
        return Err(AdoptError::Image { image: image.to_owned(), rule });
    }
    let (cluster, component) = (params.cluster(), params.component);
    let planning = async {
        let facts = cluster.facts(component).await.map_err(api("cannot read the cluster's versions"))?;
        let faults = facts.faults(component, image);
        if !faults.is_empty() {
            return Err(AdoptError::Cluster(faults));
        }
        if let Some(remark) = facts.remark() {
            tell(&remark);
        }
        Ok(Plan::adopt(component, &params.namespace, params.seen(&cluster).await?, image)?)
    };
    let plan = params.unless(&mut interrupted, planning).await?;
    let failed = match params.carry_out(&cluster, &plan, &mut interrupted, &mut tell).await? {
        Ending::Done => return Ok(()),
        Ending::Failed(failed) => failed,
    };
    let Failed { why, unwell, is_interrupted } = failed;
    let undo = plan.undo();
    let image = undo.to.clone();
    tell(&format!("{component} {why}; putting {image} back"));
    let undone = tokio::select! {
        undone = cluster.apply(&undo) => undone,
        () = interrupted() => return Err(params.abandoned()),
    };
    if let Err(source) = undone {
        let command = params.rollback_command.clone();
        return Err(AdoptError::Stuck { component, why, image, command, source: Box::new(source) });
    }
    // Whether the pods of before are back is told; the adoption has failed in either case.
    tokio::select! {
        _ = params.watch(&cluster, &undo, &unwell, &mut tell) => {}
        () = interrupted() => {}
    }
    Err(AdoptError::TakenBack { component, why, is_interrupted, image })
}

/// Puts the former image of a part back. What goes wrong is told, and nothing is taken back: Knative's own image is where
/// all else leads back to. `interrupted` is that of [`adopt`].
pub async fn rollback(
    params: &AdoptParams,
    mut interrupted: impl AsyncFnMut(),
    mut tell: impl FnMut(&str),
) -> Result<(), AdoptError> {
    let cluster = params.cluster();
    let planning =
        async { Ok(Plan::rollback(params.component, &params.namespace, params.seen(&cluster).await?)?) };
    let plan = params.unless(&mut interrupted, planning).await?;
    match params.carry_out(&cluster, &plan, &mut interrupted, &mut tell).await? {
        Ending::Done => Ok(()),
        Ending::Failed(Failed { why, is_interrupted, .. }) => {
            Err(AdoptError::NotReady { component: params.component, why, is_interrupted })
        }
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
    Failed(Failed),
}

/// A change that was made, and whose pods are not ready.
struct Failed {
    /// Why, in a sentence without a subject.
    why: String,
    /// Workloads that were not well before the change.
    unwell: BTreeSet<String>,
    is_interrupted: bool,
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

    /// What comes before the change, unless a signal ends it.
    async fn unless<T>(
        &self,
        interrupted: &mut impl AsyncFnMut(),
        before: impl Future<Output = Result<T, AdoptError>>,
    ) -> Result<T, AdoptError> {
        tokio::select! {
            biased;
            () = interrupted() => Err(AdoptError::Unchanged { component: self.component }),
            done = before => done,
        }
    }

    fn abandoned(&self) -> AdoptError {
        AdoptError::Abandoned { component: self.component, command: self.rollback_command.clone() }
    }

    async fn carry_out(
        &self,
        cluster: &Installation,
        plan: &Plan,
        interrupted: &mut impl AsyncFnMut(),
        tell: &mut impl FnMut(&str),
    ) -> Result<Ending, AdoptError> {
        plan.lines().iter().for_each(|line| tell(line));
        if self.dry_run {
            tell("Nothing was changed (--dry-run).");
            return Ok(Ending::Done);
        }
        let unwell = self.unless(interrupted, self.unwell(cluster, plan)).await?;
        for id in &unwell {
            tell(&format!("{id} is not well already, and is not waited for"));
        }
        let was_interrupted = self.change(cluster, plan, interrupted, tell).await?;
        let watched = if was_interrupted {
            None
        } else {
            tokio::select! {
                biased;
                () = interrupted() => None,
                watched = self.watch(cluster, plan, &unwell, tell) => Some(watched),
            }
        };
        Ok(match watched {
            Some(Ok(())) => {
                tell(&format!("{} is {} now", self.component, plan.to));
                Ending::Done
            }
            Some(Err(why)) => Ending::Failed(Failed { why, unwell, is_interrupted: false }),
            None => {
                let why = "was interrupted".to_owned();
                Ending::Failed(Failed { why, unwell, is_interrupted: true })
            }
        })
    }

    /// Workloads whose pods are not ready before the change.
    async fn unwell(&self, cluster: &Installation, plan: &Plan) -> Result<BTreeSet<String>, AdoptError> {
        let component = self.component;
        let read = api(format!("cannot read the pods of {component} before the change"));
        let before = cluster.workloads(component, &plan.to).await.map_err(read)?;
        // A Deployment of Knative's own is what this is about, however it is.
        if component != Component::QueueProxy {
            return Ok(BTreeSet::new());
        }
        Ok(before.iter().filter(|workload| !workload.is_well()).map(Workload::id).collect())
    }

    /// Makes the change. A signal does not end the request, for nobody would know what became of it; a second one does.
    /// Returns whether there was a signal.
    async fn change(
        &self,
        cluster: &Installation,
        plan: &Plan,
        interrupted: &mut impl AsyncFnMut(),
        tell: &mut impl FnMut(&str),
    ) -> Result<bool, AdoptError> {
        let mut changing = pin!(cluster.apply(plan));
        let mut was_interrupted = false;
        loop {
            tokio::select! {
                changed = &mut changing => {
                    changed.map_err(api(format!("cannot change {}", plan.object())))?;
                    return Ok(was_interrupted);
                }
                () = interrupted() => {
                    if std::mem::replace(&mut was_interrupted, true) {
                        return Err(self.abandoned());
                    }
                    tell("Interrupted; waiting for the change to be made");
                }
            }
        }
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
