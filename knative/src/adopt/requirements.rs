//! What a cluster must have, and be, for one of our parts to take Knative's place. Pure.

use super::component::Component;

/// The facts that are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterFacts {
    /// The API server's version, as it tells it.
    pub(crate) kubernetes: String,
    /// The label `app.kubernetes.io/version` of Knative's Deployment `controller`; `None`: no label, or no Deployment.
    pub(crate) knative: Option<String>,
    /// Resources that are missing, as `resource.group/version`.
    pub(crate) missing: Vec<String>,
    /// The object that owns Knative's Deployments and writes them anew, as its kind and its name.
    pub(crate) owner: Option<(String, String)>,
}

impl ClusterFacts {
    /// Why the part cannot be adopted; empty: it can be.
    pub(crate) fn faults(&self, component: Component, image: &str) -> Vec<String> {
        let mut faults = Vec::new();
        if !is_at_least(&self.kubernetes, KUBERNETES) {
            faults.push(format!(
                "Kubernetes is {}, and must be {} or newer",
                self.kubernetes,
                shown(KUBERNETES)
            ));
        }
        match &self.knative {
            None => faults.push(
                "Knative Serving is not there: its Deployment `controller` is missing, or has no label \
                 app.kubernetes.io/version (another namespace? --system-namespace)"
                    .to_owned(),
            ),
            Some(version) if is_number(version) && !is_at_least(version, KNATIVE) => {
                faults.push(format!("Knative Serving is {version}, and must be {} or newer", shown(KNATIVE)));
            }
            Some(_) => {}
        }
        faults.extend(self.missing.iter().map(|missing| format!("the API server does not know {missing}")));
        if let Some((kind, name)) = &self.owner {
            faults.push(format!(
                "{kind} {name} owns Knative's objects and would put its own image back. Set the image there: \
                 spec.registry.override: {{\"{}\": \"{image}\"}}",
                override_key(component)
            ));
        }
        faults
    }

    /// A remark, where something cannot be told.
    pub(crate) fn remark(&self) -> Option<String> {
        let version = self.knative.as_ref().filter(|version| !is_number(version))?;
        Some(format!(
            "Knative Serving's version is {version:?}: whether it is {} or newer is not known",
            shown(KNATIVE)
        ))
    }
}

/// The operator's key for an image.
fn override_key(component: Component) -> &'static str {
    match component {
        Component::QueueProxy => "queue-proxy",
        Component::Activator => "activator/activator",
        Component::Autoscaler => "autoscaler/autoscaler",
    }
}

fn is_number(version: &str) -> bool {
    numbers(version).is_some()
}

fn is_at_least(version: &str, least: (u32, u32)) -> bool {
    numbers(version).is_some_and(|version| version >= least)
}

/// The first two numbers of `v1.33.2+k3s1`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.trim().trim_start_matches('v').split_once('.')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..digits].parse().ok()?))
}

fn shown((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// The oldest that we are built for.
const KUBERNETES: (u32, u32) = (1, 33);
/// The oldest whose controller gives queue-proxies the variables that ours reads.
const KNATIVE: (u32, u32) = (1, 19);

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(kubernetes: &str, knative: Option<&str>) -> ClusterFacts {
        ClusterFacts {
            kubernetes: kubernetes.to_owned(),
            knative: knative.map(str::to_owned),
            ..ClusterFacts::default()
        }
    }

    fn faults(facts: &ClusterFacts) -> Vec<String> {
        facts.faults(Component::Activator, "example.com/a")
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for good in ["v1.33.0", "v1.33.1-gke.100", "1.100", "v2.0.0", "v1.33+"] {
            assert_eq!(faults(&facts(good, Some("1.19.2"))), [""; 0], "{good}");
        }
        for old in ["v1.32.9", "v1.9.0", "v0.99", ""] {
            assert_eq!(faults(&facts(old, Some("1.19.2"))).len(), 1, "{old}");
        }
        let old = faults(&facts("v1.33.0", Some("1.18.0")));
        assert_eq!(old, ["Knative Serving is 1.18.0, and must be 1.19 or newer"]);
    }

    #[test]
    fn a_build_without_a_number_is_taken_and_remarked_upon() {
        let devel = facts("v1.33.0", Some("devel"));
        assert_eq!(faults(&devel), [""; 0]);
        assert!(devel.remark().unwrap().contains("\"devel\""));
        assert_eq!(facts("v1.33.0", Some("1.20.0")).remark(), None);
    }

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        let bare = ClusterFacts {
            missing: vec!["revisions.serving.knative.dev/v1".to_owned()],
            ..facts("v1.20.0", None)
        };
        let faults = faults(&bare);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert_eq!(faults[2], "the API server does not know revisions.serving.knative.dev/v1");
    }

    #[test]
    fn where_an_operator_rules_the_image_is_set_there() {
        let owner = Some(("KnativeServing".to_owned(), "knative-serving".to_owned()));
        let faults = faults(&ClusterFacts { owner, ..facts("v1.33.0", Some("1.20.0")) });
        assert!(
            faults[0].ends_with(r#"spec.registry.override: {"activator/activator": "example.com/a"}"#),
            "{faults:?}"
        );
    }
}
