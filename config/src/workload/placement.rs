//! Annotations that nobody reads, because their prefix is misspelt or missing, or because they are labels.

use serde_json::Value;

use super::manifest::Node;
use crate::fault::Findings;
use crate::keys::annotation::{self as keys, PREFIX};
use crate::keys::config_map;
use crate::spelling::nearest;

/// Warns of annotations that look like settings and are none. `metadata` has the annotations and labels.
pub(super) fn check(metadata: &Node<'_>, findings: &mut Findings) {
    let (annotations, labels) = (metadata.child("annotations"), metadata.child("labels"));
    if let Some(Value::Object(fields)) = labels.value {
        for key in fields.keys().filter(|key| key.starts_with(PREFIX) && is_setting(key)) {
            let advice = format!("no effect: a label sets nothing; write it below {}", annotations.path);
            findings.warn(&labels.child(key).path, advice);
        }
    }
    check_annotations(&annotations, findings);
}

/// The same for a map of annotations without labels beside it.
pub(super) fn check_annotations(annotations: &Node<'_>, findings: &mut Findings) {
    let Some(Value::Object(fields)) = annotations.value else { return };
    for key in fields.keys() {
        if let Some(meant) = meant(key) {
            let advice =
                format!("no effect: nobody knows an annotation of this name; did you mean `{meant}`?");
            findings.warn(&annotations.child(key).path, advice);
        }
    }
}

fn is_setting(key: &str) -> bool {
    keys::ALL.iter().any(|entry| entry.name() == key || entry.alias() == Some(key))
}

/// The annotation that was meant, if the prefix of the one that is written is wrong.
fn meant(key: &str) -> Option<String> {
    let Some((prefix, name)) = key.rsplit_once('/') else {
        // Another mark than a slash: `autoscaling.knative.dev.target`.
        if let Some(rest) = key.strip_prefix(AUTOSCALING) {
            return nearest(rest.get(1..)?, names()).map(|name| format!("{PREFIX}{name}"));
        }
        // Without a prefix only a name of several words is beyond doubt: `target` may be anybody's.
        let is_ours = key.contains('-') || key.chars().any(char::is_uppercase);
        return spelled(key).filter(|_| is_ours);
    };
    let group = prefix.trim_end_matches('.');
    if KNOWN_PREFIXES.contains(&group) {
        // The right prefix of another setting: `serving.knative.dev/min-scale`.
        return spelled(name).filter(|_| group == "serving.knative.dev");
    }
    let right = nearest(group, KNOWN_PREFIXES.iter().copied())?;
    (strsim::damerau_levenshtein(group, right) <= MOST_WRONG_LETTERS
        || group.starts_with("autoscaling.knative"))
    .then(|| match nearest(name, names()) {
        Some(name) if right == AUTOSCALING => format!("{PREFIX}{name}"),
        _ => format!("{right}/{name}"),
    })
}

/// The whole annotation of a name without prefix.
fn spelled(name: &str) -> Option<String> {
    let whole = format!("{PREFIX}{name}");
    is_setting(&whole).then_some(whole)
}

fn names() -> impl Iterator<Item = &'static str> {
    let annotations = keys::ALL.iter().flat_map(|entry| [Some(entry.name()), entry.alias()]).flatten();
    let short = annotations.filter_map(|name| name.strip_prefix(PREFIX));
    short.chain(config_map::ALL.iter().filter_map(|entry| entry.counterpart()?.strip_prefix(PREFIX)))
}

const AUTOSCALING: &str = "autoscaling.knative.dev";
const KNOWN_PREFIXES: &[&str] = &[
    AUTOSCALING,
    "autoscaling.internal.knative.dev",
    "client.knative.dev",
    "features.knative.dev",
    "networking.internal.knative.dev",
    "networking.knative.dev",
    "queue.sidecar.serving.knative.dev",
    "serving.knative.dev",
    "serving.kserve.io",
];
/// Transposed, lost and doubled letters; another domain has more differences.
const MOST_WRONG_LETTERS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_prefix_is_recognised_and_others_are_not() {
        for (written, expected) in [
            ("autoscaling.knative.dve/target", Some("autoscaling.knative.dev/target")),
            ("autoscalling.knative.dev/min-scale", Some("autoscaling.knative.dev/min-scale")),
            ("autoscaling.knative.de/minScale", Some("autoscaling.knative.dev/minScale")),
            ("autoscaling.knative.com/max-scael", Some("autoscaling.knative.dev/max-scale")),
            ("autoscaling.knativ.dev/window", Some("autoscaling.knative.dev/window")),
            ("autoscaler.knative.dev/target", Some("autoscaling.knative.dev/target")),
            ("serving.knative.dev/min-scale", Some("autoscaling.knative.dev/min-scale")),
            ("serving.kserv.io/deploymentMode", Some("serving.kserve.io/deploymentMode")),
            ("min-scale", Some("autoscaling.knative.dev/min-scale")),
            ("maxScale", Some("autoscaling.knative.dev/maxScale")),
            ("autoscaling.knative.dev.target", Some("autoscaling.knative.dev/target")),
            ("autoscaling.knative.dev:min-scale", Some("autoscaling.knative.dev/min-scale")),
            ("autoscaling.knative.dev", None),
            ("target", None),
            ("autoscaling.knative.dev/target", None),
            ("autoscaling.keda.sh/paused", None),
            ("autoscaling.alpha.kubernetes.io/conditions", None),
            ("serving.kserve.io/targetUtilizationPercentage", None),
            ("serving.kserve.io/metric", None),
            ("serving.knative.dev/creator", None),
            ("serving.knative.dev/rollout-duration", None),
            ("client.knative.dev/user-image", None),
            ("run.googleapis.com/ingress", None),
            ("prometheus.io/port", None),
            ("sidecar.istio.io/inject", None),
            ("autoscaling/target", None),
        ] {
            assert_eq!(meant(written).as_deref(), expected, "{written}");
        }
    }
}
