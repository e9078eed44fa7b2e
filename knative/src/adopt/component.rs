//! The parts of Knative that can be replaced, and where their images are written.

use std::fmt;

/// A part of Knative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Component {
    /// The proxy in each pod.
    QueueProxy,
    /// The proxy in front of revisions without pods.
    Activator,
    /// What decides about the number of pods.
    Autoscaler,
}

impl Component {
    /// All of them. The last is in every pod.
    pub const ALL: [Component; 3] = [Component::Activator, Component::Autoscaler, Component::QueueProxy];

    /// The name, which is also that of its Deployment and container where it has any.
    pub fn name(self) -> &'static str {
        match self {
            Component::QueueProxy => "queue-proxy",
            Component::Activator => "activator",
            Component::Autoscaler => "autoscaler",
        }
    }

    /// The name and the version of APIs that it needs, each with a resource.
    pub(crate) fn apis(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Component::QueueProxy | Component::Activator => &[("serving.knative.dev/v1", "revisions")],
            Component::Autoscaler => &[
                ("serving.knative.dev/v1", "revisions"),
                ("autoscaling.internal.knative.dev/v1alpha1", "podautoscalers"),
                ("autoscaling.internal.knative.dev/v1alpha1", "metrics"),
                ("networking.internal.knative.dev/v1alpha1", "serverlessservices"),
            ],
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
