//! `deploy/web`: how people name what is scaled.

use pilotlight_config::spelling::hint;
use pilotlight_controller::crd::ScaleTargetRef;

/// Reads a target as `kubectl` takes it: `deploy/web`, `statefulsets.apps/db`, `rollout/web`. A name alone is a Deployment's.
pub(super) fn target(text: &str) -> Result<ScaleTargetRef, String> {
    let (kind, name) = text.split_once('/').unwrap_or(("deployment", text));
    if name.is_empty() || name.contains('/') {
        return Err("write it like deploy/web".to_owned());
    }
    let word = kind.to_lowercase();
    let known = KINDS.iter().find(|(words, ..)| words.contains(&word.split('.').next().unwrap_or_default()));
    let Some((_, api_version, kind)) = known else {
        let words = KINDS.iter().flat_map(|(words, ..)| words.iter().copied());
        return Err(format!(
            "{kind:?} is none of deployment, statefulset, replicaset and rollout{}; write the RequestAutoscaler by hand for \
             other kinds",
            hint(&word, words)
        ));
    };
    Ok(ScaleTargetRef {
        api_version: (*api_version).to_owned(),
        kind: (*kind).to_owned(),
        name: name.to_owned(),
    })
}

/// `deployment/web`.
pub(super) fn short(target: &ScaleTargetRef) -> String {
    format!("{}/{}", target.kind.to_lowercase(), target.name)
}

/// Words for each kind, with its group and version.
const KINDS: [(&[&str], &str, &str); 4] = [
    (&["deployment", "deploy", "deployments"], "apps/v1", "Deployment"),
    (&["statefulset", "sts", "statefulsets"], "apps/v1", "StatefulSet"),
    (&["replicaset", "rs", "replicasets"], "apps/v1", "ReplicaSet"),
    (&["rollout", "rollouts", "ro"], "argoproj.io/v1alpha1", "Rollout"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_kubectl_names_them() {
        let kind = |text: &str| target(text).map(|target| format!("{} {}", target.kind, target.name));
        for text in ["web", "deploy/web", "deployment/web", "Deployments/web", "deployments.apps/web"] {
            assert_eq!(kind(text).as_deref(), Ok("Deployment web"), "{text}");
        }
        assert_eq!(kind("sts/db").as_deref(), Ok("StatefulSet db"));
        assert_eq!(target("rollout/web").unwrap().api_version, "argoproj.io/v1alpha1");
        let wrong = kind("deplyoment/web").unwrap_err();
        assert!(wrong.contains("did you mean \"deployment\"?"), "{wrong}");
        assert!(kind("deploy/").is_err());
    }
}
