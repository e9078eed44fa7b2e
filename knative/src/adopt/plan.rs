//! What an adoption or a rollback changes. Pure.

use serde_json::{Value, json};

use super::component::Component;

/// An image as it is written in the cluster now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenImage {
    /// The image.
    pub(crate) image: String,
    /// The image that was there before ours, if ours took its place.
    pub(crate) former: Option<String>,
}

/// A change of one image in one object, and the way back.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The part.
    pub component: Component,
    /// The namespace of Knative.
    pub namespace: String,
    /// The image that is there now.
    pub from: String,
    /// The image to be.
    pub to: String,
    /// The annotation to be: the former image; `None`: none.
    pub former: Option<String>,
    /// The annotation that is there now.
    former_now: Option<String>,
}

/// Why there is nothing to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The image is there already.
    #[error("{component} has the image {image} already")]
    There {
        /// The part.
        component: Component,
        /// The image.
        image: String,
    },
    /// No former image is known.
    #[error("{component} was not adopted: its image is {image}, and no annotation names a former one")]
    NotAdopted {
        /// The part.
        component: Component,
        /// The image that is there.
        image: String,
    },
}

impl Plan {
    /// Puts `image` in the place of what is there.
    pub(crate) fn adopt(
        component: Component,
        namespace: &str,
        seen: SeenImage,
        image: &str,
    ) -> Result<Plan, PlanError> {
        if seen.image == image {
            return Err(PlanError::There { component, image: seen.image });
        }
        // What is remembered is Knative's own, however often ours is replaced by a newer one.
        let former = seen.former.clone().unwrap_or_else(|| seen.image.clone());
        let (namespace, to) = (namespace.to_owned(), image.to_owned());
        let former = Some(former).filter(|former| *former != to);
        Ok(Plan { component, namespace, from: seen.image, to, former, former_now: seen.former })
    }

    /// Puts the former image back.
    pub(crate) fn rollback(
        component: Component,
        namespace: &str,
        seen: SeenImage,
    ) -> Result<Plan, PlanError> {
        let Some(to) = seen.former.clone() else {
            return Err(PlanError::NotAdopted { component, image: seen.image });
        };
        let namespace = namespace.to_owned();
        Ok(Plan { component, namespace, from: seen.image, to, former: None, former_now: seen.former })
    }

    /// The change back: everything as it is now.
    #[must_use]
    pub fn undo(&self) -> Plan {
        Plan {
            from: self.to.clone(),
            to: self.from.clone(),
            former: self.former_now.clone(),
            former_now: self.former.clone(),
            ..self.clone()
        }
    }

    /// The object that is changed.
    pub fn object(&self) -> String {
        match self.component {
            Component::QueueProxy => {
                format!("ConfigMap {}/{CONFIG_DEPLOYMENT}, key {IMAGE_KEY}", self.namespace)
            }
            of_deployment => {
                format!("Deployment {}/{of_deployment}, container {of_deployment}", self.namespace)
            }
        }
    }

    /// The change in lines for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.object(), format!("  - {}", self.from), format!("  + {}", self.to)];
        match (&self.former_now, &self.former) {
            (now, to_be) if now == to_be => {}
            (_, Some(former)) => lines.push(format!("  + annotation {FORMER_IMAGE}: {former}")),
            (_, None) => lines.push(format!("  - annotation {FORMER_IMAGE}")),
        }
        lines
    }

    /// The patch: a merge patch of the ConfigMap, a strategic merge patch of the Deployment.
    pub(crate) fn patch(&self) -> Value {
        let metadata = json!({"annotations": {FORMER_IMAGE: self.former}});
        match self.component {
            Component::QueueProxy => json!({"metadata": metadata, "data": {IMAGE_KEY: self.to}}),
            of_deployment => {
                let container = json!({"name": of_deployment.name(), "image": self.to});
                json!({"metadata": metadata, "spec": {"template": {"spec": {"containers": [container]}}}})
            }
        }
    }
}

/// Whether an image is one of ours, as far as its name tells.
pub(crate) fn is_ours(image: &str) -> bool {
    image.contains("pilotlight")
}

/// A fault in the name of an image; `None`: there is none that can be seen.
pub(crate) fn image_fault(image: &str) -> Option<&'static str> {
    if image.is_empty() {
        Some("is empty")
    } else if image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Some("has a space in it")
    } else if image.contains("://") {
        Some("is a URL; an image has no scheme in front")
    } else {
        None
    }
}

/// The annotation that remembers the image in whose place ours is.
pub(crate) const FORMER_IMAGE: &str = "pilotlight.dev/former-image";
/// The ConfigMap that names the queue-proxy's image.
pub(crate) const CONFIG_DEPLOYMENT: &str = "config-deployment";
/// The key of the queue-proxy's image.
pub(crate) const IMAGE_KEY: &str = "queue-sidecar-image";

#[cfg(test)]
mod tests {
    use super::*;

    const KNATIVE: &str = "gcr.io/knative-releases/activator:v1.20";
    const OURS: &str = "example.com/pilotlight-knative-activator:1";
    const NEWER: &str = "example.com/pilotlight-knative-activator:2";

    fn seen(image: &str, former: Option<&str>) -> SeenImage {
        SeenImage { image: image.to_owned(), former: former.map(str::to_owned) }
    }

    fn adopt(seen: SeenImage, image: &str) -> Plan {
        Plan::adopt(Component::Activator, "knative-serving", seen, image).unwrap()
    }

    #[test]
    fn an_image_takes_the_place_of_another_and_remembers_it() {
        let plan = adopt(seen(KNATIVE, None), OURS);
        assert_eq!(
            plan.patch(),
            json!({"metadata": {"annotations": {"pilotlight.dev/former-image": KNATIVE}},
                "spec": {"template": {"spec": {"containers": [{"name": "activator", "image": OURS}]}}}})
        );
        assert_eq!(
            plan.lines(),
            [
                "Deployment knative-serving/activator, container activator".to_owned(),
                format!("  - {KNATIVE}"),
                format!("  + {OURS}"),
                format!("  + annotation pilotlight.dev/former-image: {KNATIVE}"),
            ]
        );
    }

    #[test]
    fn the_way_back_is_the_image_before_and_no_annotation() {
        let undo = adopt(seen(KNATIVE, None), OURS).undo();
        assert_eq!((undo.to.as_str(), &undo.former), (KNATIVE, &None));
        assert_eq!(undo.patch()["metadata"]["annotations"], json!({"pilotlight.dev/former-image": null}));
        assert_eq!(undo.lines()[3], "  - annotation pilotlight.dev/former-image");
    }

    #[test]
    fn a_newer_one_of_ours_remembers_knatives_and_its_way_back_is_the_older() {
        let plan = adopt(seen(OURS, Some(KNATIVE)), NEWER);
        assert_eq!(plan.former.as_deref(), Some(KNATIVE));
        assert_eq!(plan.lines().len(), 3, "the annotation stays as it is");
        let undo = plan.undo();
        assert_eq!((undo.to.as_str(), undo.former.as_deref()), (OURS, Some(KNATIVE)));
    }

    #[test]
    fn a_rollback_puts_the_former_back_and_forgets_it() {
        let plan =
            Plan::rollback(Component::Activator, "knative-serving", seen(OURS, Some(KNATIVE))).unwrap();
        assert_eq!((plan.to.as_str(), plan.former), (KNATIVE, None));
        let refused =
            Plan::rollback(Component::Activator, "knative-serving", seen(KNATIVE, None)).unwrap_err();
        assert!(
            refused.to_string().starts_with("activator was not adopted: its image is gcr.io/"),
            "{refused}"
        );
        let by_adopting = adopt(seen(OURS, Some(KNATIVE)), KNATIVE);
        assert_eq!(by_adopting.former, None, "adopting Knative's own is a rollback");
    }

    #[test]
    fn what_is_there_already_is_not_put_there_again() {
        let refused = Plan::adopt(Component::Activator, "knative-serving", seen(OURS, Some(KNATIVE)), OURS);
        assert_eq!(refused.unwrap_err().to_string(), format!("activator has the image {OURS} already"));
    }

    #[test]
    fn the_queue_proxys_image_is_a_key_of_config_deployment() {
        let plan = Plan::adopt(Component::QueueProxy, "knative-serving", seen("a", None), "b").unwrap();
        assert_eq!(plan.object(), "ConfigMap knative-serving/config-deployment, key queue-sidecar-image");
        let patch = json!({"metadata": {"annotations": {"pilotlight.dev/former-image": "a"}},
            "data": {"queue-sidecar-image": "b"}});
        assert_eq!(plan.patch(), patch);
    }

    #[test]
    fn a_name_that_is_no_image_is_refused_before_anything_is_changed() {
        assert_eq!(image_fault(OURS), None);
        for wrong in ["", "a b", "https://example.com/a"] {
            assert!(image_fault(wrong).is_some(), "{wrong}");
        }
    }
}
