//! The fields of a spec as the annotations that they are named after, beside those of the target.

use std::collections::{BTreeMap, BTreeSet};

use pilotlight_config::keys::annotation;
use pilotlight_config::{AutoscalerConfig, Fault, Warning, duration};

use crate::crd::{Metric, RequestAutoscalerSpec};

/// Everything that is written about the scaling of a workload, under the names of Knative's annotations.
#[derive(Debug)]
pub(super) struct WrittenSettings {
    /// The annotations that hold.
    pub(super) annotations: BTreeMap<String, String>,
    /// Annotations that the target has written. Faults name them as they are; others are named by their fields.
    of_target: BTreeSet<&'static str>,
    /// Annotations of the target that have no effect, a sentence each.
    pub(super) overruled: Vec<String>,
}

impl WrittenSettings {
    pub(super) fn of(
        spec: &RequestAutoscalerSpec,
        target: &BTreeMap<String, String>,
        config: &AutoscalerConfig,
    ) -> WrittenSettings {
        let is_setting =
            |key: &String| key.starts_with(annotation::PREFIX) || key == annotation::PROGRESS_DEADLINE.name;
        let of_target = target.iter().filter(|(key, _)| is_setting(key));
        let mut written = WrittenSettings {
            annotations: of_target.map(|(key, value)| (key.clone(), value.clone())).collect(),
            of_target: BTreeSet::new(),
            overruled: Vec::new(),
        };
        written.leave_out();
        for field in FIELDS {
            let of_target = written.take(field.annotation);
            match ((field.value)(spec), of_target) {
                (Some(of_spec), of_target) => {
                    if let Some((key, other)) = of_target.filter(|(_, other)| !is_same(&of_spec, other)) {
                        let name = field.name;
                        written.overruled.push(format!(
                            "{name}: the spec's {of_spec} holds; the target's annotation {key}: {other:?} has no effect"
                        ));
                    }
                    written.annotations.insert(field.annotation.to_owned(), of_spec);
                }
                (None, Some((key, value))) => {
                    written.annotations.insert(key, value);
                    written.of_target.insert(field.annotation);
                }
                (None, None) => {}
            }
        }
        // Zero pods are written down by whoever wants them, here or for the whole cluster.
        let has_least = spec.min_replicas.is_some() || written.of_target.contains(annotation::MIN_SCALE.name);
        if !has_least && !config.is_written("min-scale") {
            written.annotations.insert(annotation::MIN_SCALE.name.to_owned(), "1".to_owned());
        }
        // Named, so that every value is held to the rules of the class.
        written.annotations.insert(annotation::CLASS.name.to_owned(), annotation::KPA.to_owned());
        written
    }

    /// The same fault, named by the field.
    pub(super) fn fault(&self, fault: Fault) -> Fault {
        let rule = self.in_words_of_fields(fault.rule.clone());
        Fault { rule, key: self.name_of(&fault.key), ..fault }
    }

    /// The same warning, named by the field.
    pub(super) fn warning(&self, warning: Warning) -> Warning {
        let advice = self.in_words_of_fields(warning.advice.clone());
        Warning { advice, key: self.name_of(&warning.key), ..warning }
    }

    /// Leaves out what means nothing here.
    fn leave_out(&mut self) {
        if let Some((key, class)) =
            self.take(annotation::CLASS.name).filter(|(_, class)| class != annotation::KPA)
        {
            self.overruled
                .push(format!("{key}: {class:?} has no effect; the RequestAutoscaler scales the target"));
        }
        if let Some((key, _)) = self.take(annotation::TARGET_BURST_CAPACITY.name) {
            self.overruled
                .push(format!("{key}: no effect; `interception` says when activators are in the path"));
        }
    }

    /// Takes a setting out, in its canonical spelling or else its older one. The older one beside the canonical one has no
    /// effect in Knative, either.
    fn take(&mut self, canonical: &str) -> Option<(String, String)> {
        let entry = annotation::ALL.iter().find(|entry| entry.name() == canonical)?;
        let mut found = None;
        for key in [Some(entry.name()), entry.alias()].into_iter().flatten() {
            let value = self.annotations.remove(key).map(|value| (key.to_owned(), value));
            found = found.or(value);
        }
        found
    }

    fn name_of(&self, key: &str) -> String {
        let field = FIELDS.iter().find(|field| field.annotation == key);
        match field.filter(|field| !self.of_target.contains(field.annotation)) {
            Some(field) => field.name.to_owned(),
            None => format!("the target's annotation {key}"),
        }
    }

    /// Puts the names of fields in the place of the settings' short names.
    fn in_words_of_fields(&self, text: String) -> String {
        let of_spec = FIELDS.iter().filter(|field| !self.of_target.contains(field.annotation));
        of_spec.fold(text, |text, field| match field.annotation.strip_prefix(annotation::PREFIX) {
            Some(short) if short.contains('-') => replace_word(&text, short, field.name),
            _ => text,
        })
    }
}

/// A field of the spec that is a setting of Knative's.
struct Field {
    name: &'static str,
    annotation: &'static str,
    value: fn(&RequestAutoscalerSpec) -> Option<String>,
}

/// Every field that is one of Knative's settings.
static FIELDS: &[Field] = &[
    Field {
        name: "minReplicas",
        annotation: annotation::MIN_SCALE.name,
        value: |spec| text(spec.min_replicas.as_ref()),
    },
    Field {
        name: "maxReplicas",
        annotation: annotation::MAX_SCALE.name,
        value: |spec| text(spec.max_replicas.as_ref()),
    },
    Field {
        name: "metric",
        annotation: annotation::METRIC.name,
        value: |spec| {
            spec.metric.map(|metric| match metric {
                Metric::Concurrency => "concurrency".to_owned(),
                Metric::Rps => "rps".to_owned(),
            })
        },
    },
    Field { name: "target", annotation: annotation::TARGET.name, value: |spec| text(spec.target.as_ref()) },
    Field {
        name: "targetUtilizationPercentage",
        annotation: annotation::TARGET_UTILIZATION_PERCENTAGE.name,
        value: |spec| text(spec.target_utilization_percentage.as_ref()),
    },
    Field { name: "window", annotation: annotation::WINDOW.name, value: |spec| spec.window.clone() },
    Field {
        name: "panicWindowPercentage",
        annotation: annotation::PANIC_WINDOW_PERCENTAGE.name,
        value: |spec| text(spec.panic_window_percentage.as_ref()),
    },
    Field {
        name: "panicThresholdPercentage",
        annotation: annotation::PANIC_THRESHOLD_PERCENTAGE.name,
        value: |spec| text(spec.panic_threshold_percentage.as_ref()),
    },
    Field {
        name: "metricAggregationAlgorithm",
        annotation: annotation::METRIC_AGGREGATION_ALGORITHM.name,
        value: |spec| spec.metric_aggregation_algorithm.clone(),
    },
    Field {
        name: "scaleDownDelay",
        annotation: annotation::SCALE_DOWN_DELAY.name,
        value: |spec| spec.scale_down_delay.clone(),
    },
    Field {
        name: "initialScale",
        annotation: annotation::INITIAL_SCALE.name,
        value: |spec| text(spec.initial_scale.as_ref()),
    },
    Field {
        name: "activationScale",
        annotation: annotation::ACTIVATION_SCALE.name,
        value: |spec| text(spec.activation_scale.as_ref()),
    },
    Field {
        name: "scaleToZeroPodRetention",
        annotation: annotation::SCALE_TO_ZERO_POD_RETENTION_PERIOD.name,
        value: |spec| spec.scale_to_zero_pod_retention.clone(),
    },
];

fn text<T: ToString>(value: Option<&T>) -> Option<String> {
    value.map(ToString::to_string)
}

/// Whether two texts say the same number or the same time.
fn is_same(one: &str, other: &str) -> bool {
    let numbers = || Some(one.trim().parse::<f64>().ok()? == other.trim().parse::<f64>().ok()?);
    let times = || Some(duration::parse(one).ok()? == duration::parse(other).ok()?);
    one == other || numbers() == Some(true) || times() == Some(true)
}

/// Replaces a word that no letter, digit or dash is next to.
fn replace_word(text: &str, word: &str, by: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-/_".contains(letter);
    let (mut replaced, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(word) {
        let (before, found) = rest.split_at(at);
        let after = &found[word.len()..];
        let is_whole = !before.ends_with(is_part) && !after.starts_with(is_part);
        replaced.push_str(before);
        replaced.push_str(if is_whole { by } else { word });
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}
