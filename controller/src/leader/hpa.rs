//! A HorizontalPodAutoscaler: whose number of pods it holds, and how much load its metrics show.

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::crd::ScaleTargetRef;
use crate::facts::Name;
use crate::refusal::HpaFact;

/// A HorizontalPodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NamedHpa {
    pub(crate) hpa: HpaFact,
    /// The ScaledObject of KEDA that it was made from.
    pub(crate) scaled_object: Option<String>,
}

/// Reads one.
pub(crate) fn read(object: &HorizontalPodAutoscaler) -> Option<(Name, NamedHpa)> {
    let (meta, spec) = (&object.metadata, object.spec.as_ref()?);
    let number = |value: i32| u32::try_from(value).unwrap_or(0);
    let target = &spec.scale_target_ref;
    let current =
        object.status.as_ref().and_then(|status| status.current_metrics.as_deref()).unwrap_or_default();
    let hpa = HpaFact {
        target: ScaleTargetRef {
            api_version: target.api_version.clone().unwrap_or_else(|| "apps/v1".to_owned()),
            kind: target.kind.clone(),
            name: target.name.clone(),
        },
        min_replicas: spec.min_replicas.map_or(1, number),
        max_replicas: number(spec.max_replicas),
        load_fraction: load_fraction(spec.metrics.as_deref().unwrap_or_default(), current),
    };
    let mut owners = meta.owner_references.iter().flatten();
    let scaled_object = owners.find(|owner| owner.kind == "ScaledObject").map(|owner| owner.name.clone());
    Some((Name::of(meta)?, NamedHpa { hpa, scaled_object }))
}

/// The greatest of the metrics as a share of its target; `None`: one of them is not known.
fn load_fraction(wanted: &[MetricSpec], current: &[MetricStatus]) -> Option<f64> {
    let fractions: Option<Vec<f64>> = wanted.iter().map(|wanted| fraction(wanted, current)).collect();
    fractions?.into_iter().reduce(f64::max)
}

fn fraction(wanted: &MetricSpec, current: &[MetricStatus]) -> Option<f64> {
    current.iter().filter(|it| it.type_ == wanted.type_).find_map(|it| {
        let (target, value) = match (
            (&wanted.resource, &it.resource),
            (&wanted.container_resource, &it.container_resource),
            (&wanted.pods, &it.pods),
            (&wanted.object, &it.object),
            (&wanted.external, &it.external),
        ) {
            ((Some(wanted), Some(it)), ..) if wanted.name == it.name => (&wanted.target, &it.current),
            (_, (Some(wanted), Some(it)), ..)
                if (&wanted.name, &wanted.container) == (&it.name, &it.container) =>
            {
                (&wanted.target, &it.current)
            }
            (_, _, (Some(wanted), Some(it)), ..) if wanted.metric == it.metric => {
                (&wanted.target, &it.current)
            }
            (_, _, _, (Some(wanted), Some(it)), _)
                if (&wanted.metric, &wanted.described_object) == (&it.metric, &it.described_object) =>
            {
                (&wanted.target, &it.current)
            }
            (_, _, _, _, (Some(wanted), Some(it))) if wanted.metric == it.metric => {
                (&wanted.target, &it.current)
            }
            _ => return None,
        };
        share(target, value)
    })
}

fn share(target: &MetricTarget, current: &MetricValueStatus) -> Option<f64> {
    let of = |one: Option<f64>, all: Option<f64>| one.zip(all).filter(|(_, all)| *all > 0.0);
    let utilization =
        of(current.average_utilization.map(f64::from), target.average_utilization.map(f64::from));
    let average = || of(amount(current.average_value.as_ref()), amount(target.average_value.as_ref()));
    let value = || of(amount(current.value.as_ref()), amount(target.value.as_ref()));
    let (current, target) = utilization.or_else(average).or_else(value)?;
    Some(current / target)
}

/// The number that a quantity stands for.
pub(crate) fn amount(quantity: Option<&Quantity>) -> Option<f64> {
    let text = quantity?.0.trim();
    let end = text.find(|it: char| !(it.is_ascii_digit() || "+-.".contains(it))).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        // An exponent, as in `12e3`.
        _ => return text.parse().ok(),
    };
    Some(digits.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read_one(metrics: &Value, current: &Value) -> NamedHpa {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "web", "ownerReferences": [
                {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "queue", "uid": "1"}]},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 2, "maxReplicas": 9, "metrics": metrics},
            "status": {"currentMetrics": current, "desiredReplicas": 2, "conditions": []}});
        read(&serde_json::from_value(object).unwrap()).unwrap().1
    }

    #[test]
    fn the_load_is_the_greatest_share_of_a_target() {
        let metrics = json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}}]);
        let current = json!([
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 2, "averageValue": "20m"}}},
            {"type": "Pods", "pods": {"metric": {"name": "rps"}, "current": {"averageValue": "900m"}}}]);
        let fact = read_one(&metrics, &current);
        assert_eq!(fact.hpa.load_fraction, Some(0.09));
        assert_eq!((fact.hpa.min_replicas, fact.hpa.max_replicas), (2, 9));
        assert_eq!(fact.scaled_object.as_deref(), Some("queue"));
        assert_eq!(read_one(&metrics, &json!([current[0]])).hpa.load_fraction, None, "one is not known");
    }

    #[test]
    fn quantities_are_read_with_their_suffixes() {
        let read = |text: &str| amount(Some(&Quantity(text.to_owned())));
        assert_eq!(
            ["5", "250m", "2Ki", "1.5M", "3e2"].map(read),
            [5.0, 0.25, 2048.0, 1.5e6, 300.0].map(Some)
        );
        assert_eq!(read("much"), None);
    }
}
