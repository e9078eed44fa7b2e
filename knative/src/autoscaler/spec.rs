//! The settings of a revision: its PodAutoscaler and the cluster's ConfigMaps, resolved.

use std::collections::BTreeMap;

use pilotlight_config::keys::annotation;
use pilotlight_config::{Faults, Verdict, resolve::resolve_within};
use pilotlight_core::{ConcurrencyLimit, Reachability, RevisionSpec};

use super::facts::AutoscalerFact;
use super::settings::Settings;

/// The settings of a revision, and what is wrong with them. `None`: another autoscaler's.
///
/// A revision with illegal annotations is scaled as if they were not there, which is what Knative's autoscaler does with
/// what has come past its webhook.
pub(crate) fn spec_of(fact: &AutoscalerFact, settings: &Settings) -> Option<(RevisionSpec, Option<Faults>)> {
    let config = &settings.autoscaler;
    let class = fact.annotations.get(annotation::CLASS.name).unwrap_or(&config.pod_autoscaler_class);
    if class != annotation::KPA {
        return None;
    }
    let limit = u32::try_from(fact.spec.container_concurrency).unwrap_or(0);
    let reachability = match fact.spec.reachability.as_str() {
        "Reachable" => Reachability::Reachable,
        "Unreachable" => Reachability::Unreachable,
        _ => Reachability::Unknown,
    };
    let resolve = |annotations: &BTreeMap<String, String>| {
        let limit = ConcurrencyLimit::from(limit);
        resolve_within(settings.progress_deadline, config, annotations, limit, reachability).value
    };
    let (mut annotations, mut first) = (fact.annotations.clone(), None);
    loop {
        match resolve(&annotations) {
            Ok(Verdict::Resolved(resolved)) => return Some((resolved.spec, first)),
            Ok(Verdict::OtherClass(_)) => return None,
            Err(faults) => {
                let before = annotations.len();
                annotations.retain(|key, _| !faults.iter().any(|fault| fault.key == *key));
                first = first.or(Some(faults));
                if annotations.len() == before {
                    // A fault that is in no annotation: only Knative's defaults are left.
                    return Some((RevisionSpec::default(), first));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fact(annotations: &[(&str, &str)]) -> AutoscalerFact {
        let key = |key: &str| format!("autoscaling.knative.dev/{key}");
        let annotations = annotations.iter().map(|(name, value)| (key(name), (*value).to_owned()));
        AutoscalerFact { annotations: annotations.collect(), ..AutoscalerFact::default() }
    }

    fn resolved(annotations: &[(&str, &str)]) -> (RevisionSpec, Option<String>) {
        let (spec, faults) = spec_of(&fact(annotations), &Settings::default()).unwrap();
        (spec, faults.map(|faults| faults.to_string()))
    }

    #[test]
    fn illegal_annotations_count_as_not_written_and_are_told() {
        let (spec, faults) =
            resolved(&[("min-scale", "2"), ("window", "1s"), ("max-scale", "many"), ("target", "50")]);
        assert_eq!((spec.min_scale, spec.max_scale, spec.total), (2, None, 50.0));
        assert_eq!(spec.stable_window, Duration::from_secs(60));
        let faults = faults.unwrap();
        assert!(faults.contains("window") && faults.contains("max-scale"), "{faults}");
        assert_eq!(resolved(&[("min-scale", "2")]).1, None);
    }

    #[test]
    fn annotations_that_contradict_each_other_do_not_stop_a_revision() {
        let (spec, faults) = resolved(&[("min-scale", "5"), ("max-scale", "3"), ("window", "30s")]);
        assert_eq!((spec.min_scale, spec.stable_window), (5, Duration::from_secs(30)));
        assert!(faults.unwrap().contains("max-scale"));
    }

    #[test]
    fn a_revision_without_a_class_is_ours_where_the_cluster_says_so() {
        let mut settings = Settings::default();
        assert!(spec_of(&fact(&[]), &settings).is_some());
        settings.autoscaler.pod_autoscaler_class = "hpa.autoscaling.knative.dev".to_owned();
        assert!(spec_of(&fact(&[]), &settings).is_none());
        assert!(spec_of(&fact(&[("class", annotation::KPA)]), &settings).is_some());
    }

    #[test]
    fn the_clusters_progress_deadline_and_the_limit_and_reachability_count() {
        let settings = Settings { progress_deadline: Duration::from_secs(100), ..Settings::default() };
        let mut fact = fact(&[("min-scale", "2")]);
        fact.spec.container_concurrency = 10;
        fact.spec.reachability = "Unreachable".to_owned();
        let (spec, _) = spec_of(&fact, &settings).unwrap();
        assert_eq!(spec.activation_timeout, Duration::from_secs(130));
        assert_eq!((spec.total, spec.min_scale, spec.is_reachable()), (10.0, 0, false));
        fact.spec.reachability = String::new();
        assert_eq!(spec_of(&fact, &settings).unwrap().0.reachability, Reachability::Unknown);
    }
}
