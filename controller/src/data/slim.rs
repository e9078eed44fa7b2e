//! The part of each fact that an activator needs. What is left out costs no memory, and a change of it is no news: a status
//! that the controller writes every two seconds is none.

use crate::crd::RequestAutoscalerStatus;
use crate::facts::{AutoscalerFact, PodFact, ServiceFact};

/// A RequestAutoscaler: the spec, which pods there are, and which of them are about to go.
pub(super) fn autoscaler(fact: AutoscalerFact) -> AutoscalerFact {
    let RequestAutoscalerStatus { selector, leaving, .. } = fact.status;
    AutoscalerFact {
        uid: String::new(),
        resource_version: String::new(),
        generation: 0,
        finalizers: Vec::new(),
        status: RequestAutoscalerStatus { selector, leaving, ..RequestAutoscalerStatus::default() },
        ..fact
    }
}

/// A Service: where it leads.
pub(super) fn service(fact: ServiceFact) -> ServiceFact {
    ServiceFact {
        uid: String::new(),
        resource_version: String::new(),
        selector_managers: Vec::new(),
        owner: None,
        ..fact
    }
}

/// A pod: where it is, and how it comes up.
pub(super) fn pod(fact: PodFact) -> PodFact {
    PodFact { uid: String::new(), node: String::new(), waits_for: None, ..fact }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::data::pretend::autoscaler as written;
    use crate::index::Fact;

    #[test]
    fn a_status_that_says_nothing_about_pods_is_no_news() {
        let told = |status| {
            let spec = json!({"scaleTargetRef": {"name": "web"}});
            let Fact::Autoscaler(_, Some(fact)) = written("web", &spec, &status) else {
                panic!("it is there")
            };
            autoscaler(AutoscalerFact {
                resource_version: status.to_string(),
                ..AutoscalerFact::clone(&fact)
            })
        };
        let before = told(json!({"selector": "app=web", "inFlight": 1.0, "replicas": 3}));
        assert_eq!(before, told(json!({"selector": "app=web", "inFlight": 2.0, "panicking": true})));
        assert_ne!(before, told(json!({"selector": "app=web", "leaving": ["web-1"]})));
        assert_ne!(before, told(json!({"selector": "app=api"})));
    }
}
