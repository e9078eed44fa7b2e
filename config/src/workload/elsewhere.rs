//! Other autoscalers in plain words: the same sentences for a HorizontalPodAutoscaler that somebody
//! wrote and for one that KServe makes.

use std::fmt;

use pilotlight_core::RevisionId;
use serde::Serialize;

use super::Source;
use super::requests::{Share, Shares};
use crate::wording::count;

/// An object by which another autoscaler scales, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Elsewhere {
    /// Namespace and name.
    #[serde(rename = "name")]
    pub id: RevisionId,
    /// The kind of object.
    pub kind: &'static str,
    /// The file, document and line it was read from.
    pub source: Source,
    /// Its effects, sentence by sentence.
    pub explanation: Vec<String>,
    /// The kind and name of what it scales, in the same namespace.
    #[serde(skip)]
    pub(super) scales: Option<(String, String)>,
    /// What the containers of its pods must request.
    #[serde(skip)]
    pub(super) needed: Shares,
}

/// Something that an autoscaler holds at a value: `cpu at 80 % of what the pods request`.
pub(super) struct Goal {
    text: String,
    share: Option<Share>,
}

impl Goal {
    /// A resource as a share of what the pods request.
    pub(super) fn utilization(resource: &str, percent: impl fmt::Display) -> Self {
        let text = format!("{resource} at {percent} % of what the pods request");
        Goal { text, share: Some(Share::of(resource)) }
    }

    /// The same of one container only, where one is named.
    pub(super) fn of_container(mut self, container: Option<String>) -> Self {
        if let Some(share) = &mut self.share {
            share.container = container;
        }
        self
    }

    /// An amount a pod.
    pub(super) fn per_pod(name: &str, amount: &str) -> Self {
        Goal { text: format!("{name} at {amount} a pod"), share: None }
    }

    /// An amount in all.
    pub(super) fn in_all(name: &str, amount: &str) -> Self {
        Goal { text: format!("{name} at {amount}"), share: None }
    }
}

/// What containers must request for these goals of a HorizontalPodAutoscaler.
pub(super) fn needed(goals: &[Goal]) -> Shares {
    if goals.is_empty() {
        return Shares::cpu();
    }
    let shares: Vec<Share> = goals.iter().filter_map(|goal| goal.share.clone()).collect();
    Shares { has_others: shares.len() < goals.len(), shares }
}

/// How a HorizontalPodAutoscaler decides.
pub(super) fn hpa(min: u32, max: u32, goals: &[Goal], has_behavior: bool) -> Vec<String> {
    let each: Vec<&str> = goals.iter().map(|goal| goal.text.as_str()).collect();
    let mut sentences = match each.as_slice() {
        [] => vec![
            "There are as many pods as keep cpu at 80 % of what the pods request, the default.".to_owned(),
        ],
        [one] => vec![format!("There are as many pods as keep {one}.")],
        several => vec![format!(
            "There are as many pods as keep each of these: {}; the largest number counts.",
            several.join(", ")
        )],
    };
    sentences.push(range(min, max));
    sentences.push(if has_behavior {
        "It is decided every 15 s, as fast as its behavior allows.".to_owned()
    } else {
        "It is decided every 15 s: up at once, to at most twice as many or 4 more; down to the most that was needed in \
         the last 5 min."
            .to_owned()
    });
    if min > 0 {
        sentences.push("It never goes to zero.".to_owned());
    }
    sentences
}

/// The bounds in words.
pub(super) fn range(min: u32, max: u32) -> String {
    match (min, max) {
        (0, max) => format!("0 to {}.", count(max, "pod")),
        (1, 1) => "There is always exactly 1 pod.".to_owned(),
        (min, max) if min >= max => format!("There are always exactly {}.", count(min, "pod")),
        (min, max) => format!("There are always {min} to {}.", count(max, "pod")),
    }
}
