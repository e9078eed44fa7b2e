//! The finding in words: the reason, the patch, the gains, and which settings mattered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use pilotlight_config::duration;

use super::Plan;
use super::judge::{AxisGain, Judgement};
use super::load::{Parts, silences};
use super::search::{Standing, TuneSearch};
use super::space::{GridPoint, Space};
use crate::compare::{Interval, Trials, compare};
use crate::outcome::{Metric, Outcome, Unit};
use crate::parallel::Workers;
use crate::report;
use crate::scenario::{Scaler, Settings};
use crate::sweep::{Knob, KnobPlace};

pub(super) fn report(
    parts: &Parts,
    space: &Space,
    choice: &GridPoint,
    plan: &Plan,
    search: &TuneSearch<'_>,
    judgement: Option<&Judgement>,
    workers: &mut Workers<'_>,
) -> report::Tuning {
    let goal = &plan.goal;
    let (cost, latency) = search.defaults();
    let all: Vec<(&GridPoint, Standing)> = search.all().collect();
    let candidates = all.iter().map(|(point, standing)| report::Candidate {
        name: space.name(point),
        cost: cost * standing.cost,
        // No wait at the defaults: there is no share of it.
        latency: if latency > 0.0 { latency * standing.latency } else { 0.0 },
        is_feasible: standing.is_feasible(),
    });
    let place = |wanted: &GridPoint| all.iter().position(|(point, _)| *point == wanted);
    let is_recommended = judgement.is_some_and(|judgement| judgement.is_recommended);
    let chosen = if is_recommended { choice } else { space.defaults() };
    let changed = space.changes(choice);
    let mut reason = verdict(&changed, judgement, goal.slo.is_some());
    if is_recommended {
        let contenders =
            [space.defaults(), choice].map(|point| space.settings(point).expect("both were tried"));
        let trials = Trials::seeds(plan.seed, plan.effort.worlds.max(1));
        let comparison = compare(&parts.training, &contenders, trials, workers);
        let [defaults, chosen] = [0, 1].map(|contender| &comparison.contenders[contender].outcomes[0]);
        reason += &load_in_words(parts, &contenders[0], plan.seed);
        reason += &effects_in_words(&changed, &contenders, defaults, chosen);
    }
    let gain = |metric: &String, gain: &AxisGain| report::Gain {
        metric: metric.clone(),
        defaults: gain.defaults,
        chosen: gain.chosen,
        interval: gain.change.and_then(|change| change.range),
    };
    report::Tuning {
        reason,
        searched: searched(space, &all, plan, search),
        cost_metric: goal.cost.clone(),
        latency_metric: goal.latency.clone(),
        candidates: candidates.collect(),
        defaults: place(space.defaults()),
        chosen: place(chosen),
        gains: judgement.map_or_else(Vec::new, |judgement| {
            vec![gain(&goal.cost, &judgement.cost), gain(&goal.latency, &judgement.latency)]
        }),
        sensitivities: sensitivities(space, choice, plan, &all, search),
        patch: if is_recommended { patch(&changed) } else { String::new() },
    }
}

fn searched(space: &Space, all: &[(&GridPoint, Standing)], plan: &Plan, search: &TuneSearch<'_>) -> String {
    format!(
        "{} settings of {} knobs in {} runs on the first {} % of the load; finalists in {} worlds, judged in {} on \
         the rest",
        all.len(),
        space.knobs().len(),
        search.runs,
        (plan.training_fraction * 100.0).round(),
        plan.effort.worlds,
        plan.effort.trials,
    )
}

/// The answer, and what it rests on.
fn verdict(changed: &[(&Knob, &str)], judgement: Option<&Judgement>, has_slo: bool) -> String {
    let Some(judgement) = judgement else {
        return if has_slo {
            "Keep the defaults: none of the settings tried keeps the objective, or does so at less cost."
                .to_owned()
        } else {
            "Keep the defaults: none of the settings tried is better on one axis without being worse on the other."
                .to_owned()
        };
    };
    let names: Vec<String> = changed.iter().map(|(knob, value)| format!("{}={value}", knob.name())).collect();
    let (cost, latency) = (in_words(judgement.cost.change), in_words(judgement.latency.change));
    let names = names.join(", ");
    let mut text = if judgement.is_recommended {
        format!("Set {names}: on the load held out, {}.", judgement.because)
    } else {
        format!(
            "Keep the defaults: {names} did best in the search, but on the load held out {}.",
            judgement.because
        )
    };
    let _ = write!(text, " There, cost changes by {cost}, latency by {latency}");
    let _ = match judgement.smooth.is_unharmed {
        true => write!(text, "; a smooth load of the same mean is no more than 5 % worse on either axis."),
        false => write!(text, "; on a smooth load of the same mean, one axis is more than 5 % worse."),
    };
    text
}

fn in_words(change: Option<Interval>) -> String {
    let percent = |share: f64| format!("{:+.0}", 100.0 * share);
    match change {
        None => "an amount that has no percentage, from 0".to_owned(),
        Some(Interval { mean, range: None }) => format!("{} %", percent(mean)),
        Some(Interval { mean, range: Some((low, high)) }) => {
            format!("{} % ({} to {})", percent(mean), percent(low), percent(high))
        }
    }
}

/// The peculiarities of the load, if it has any.
fn load_in_words(parts: &Parts, defaults: &Settings, seed: u64) -> String {
    let Scaler::Requests(spec) = &defaults.scaler else { return String::new() };
    let idle = spec.time_to_zero().unwrap_or(Duration::MAX);
    let window = duration::format(spec.stable_window);
    let Some(found) = silences(&parts.training, seed, idle) else { return String::new() };
    let seconds = |time: Duration| format!("{:.0} s", time.as_secs_f64());
    let hours = parts.training.duration.as_secs_f64() / 3_600.0;
    let per_hour = f64::from(found.long) / hours;
    if found.long > 0 {
        format!(
            " {per_hour:.0} times an hour the load is silent for longer than the last pod stays after a request ({}), \
             for up to {}: then the service scales to zero.",
            seconds(idle),
            seconds(found.longest),
        )
    } else if found.longest > spec.stable_window {
        format!(
            " The load falls silent for up to {}, longer than the window of {window}: by then the autoscaler has \
             forgotten it.",
            seconds(found.longest),
        )
    } else {
        String::new()
    }
}

/// The effect of each change, and what that came to where it was chosen.
fn effects_in_words(
    changed: &[(&Knob, &str)],
    contenders: &[Settings; 2],
    defaults: &Outcome,
    chosen: &Outcome,
) -> String {
    let mut text = String::new();
    for (knob, _) in changed {
        let [before, after] = contenders.each_ref().map(|settings| measure(knob.name(), settings));
        if let Some(effect) = effect(knob.name(), after > before) {
            let _ = write!(text, " {effect}");
        }
    }
    let facts = ["starts", "cold-starts", "panics", "peak", "mean-pods"].map(|name| {
        let [before, after] = [defaults, chosen]
            .map(|outcome| Unit::show(unit(name), outcome.metric(name).unwrap_or_default()));
        format!("{name} {before} -> {after}")
    });
    let _ = write!(text, " On the part it was chosen on: {}.", facts.join(", "));
    text
}

fn unit(metric: &str) -> Unit {
    Metric::named(metric).map_or(Unit::Ratio, |metric| metric.unit)
}

/// A number that grows with the setting.
fn measure(knob: &str, settings: &Settings) -> f64 {
    let Scaler::Requests(spec) = &settings.scaler else { return 0.0 };
    match knob {
        "window" | "stable-window" => spec.stable_window.as_secs_f64(),
        "target" | "target-utilization-percentage" => spec.target,
        "panic-window-percentage" => spec.panic_window.as_secs_f64() / spec.stable_window.as_secs_f64(),
        "panic-threshold-percentage" => spec.panic_threshold,
        "scale-down-delay" => spec.scale_down_delay.as_secs_f64(),
        "scale-to-zero-pod-retention-period" => spec.pod_retention.as_secs_f64(),
        "min-scale" => f64::from(spec.min_scale),
        "max-scale" => spec.max_scale.map_or(f64::INFINITY, f64::from),
        "activation-scale" => f64::from(spec.activation_scale.unwrap_or(1)),
        "max-scale-up-rate" => spec.max_scale_up_rate,
        "max-scale-down-rate" => spec.max_scale_down_rate,
        _ => 0.0,
    }
}

/// The effect of more (or less) of a setting.
fn effect(knob: &str, more: bool) -> Option<&'static str> {
    Some(match (knob, more) {
        ("window" | "stable-window", true) => "The longer window remembers a burst until the next one comes.",
        ("window" | "stable-window", false) => "The shorter window forgets a burst as soon as it is over.",
        ("target" | "target-utilization-percentage", true) => {
            "The higher target fills pods more before there are new ones."
        }
        ("target" | "target-utilization-percentage", false) => {
            "The lower target leaves room in each pod for a burst that comes before new pods are up."
        }
        ("panic-window-percentage", true) => {
            "The longer panic window lets a short peak pass without new pods."
        }
        ("panic-window-percentage", false) => "The shorter panic window notices a burst sooner.",
        ("panic-threshold-percentage", true) => {
            "The higher panic threshold starts no pods for bursts that are over before the pods are up."
        }
        ("panic-threshold-percentage", false) => "The lower panic threshold starts pods earlier in a burst.",
        ("scale-down-delay", true) => "The scale-down delay keeps pods for the next burst.",
        ("scale-down-delay", false) => "The shorter scale-down delay gives pods up sooner.",
        ("scale-to-zero-pod-retention-period", true) => {
            "The retention keeps the last pod through the silences."
        }
        ("scale-to-zero-pod-retention-period", false) => {
            "The shorter retention gives the last pod up sooner."
        }
        ("min-scale", true) => "The minimum is up already when a burst begins.",
        ("min-scale", false) => "The lower minimum costs less in the silences.",
        ("max-scale", false) => "The maximum starts no more pods than a burst has use for.",
        ("activation-scale", true) => "The activation scale wakes several pods at once.",
        ("metric-aggregation-algorithm", _) => {
            "The weighted average follows the latest seconds more closely."
        }
        ("target-burst-capacity", _) => "The place of the activator decides where bursts wait.",
        ("max-scale-up-rate", false) => "The lower scale-up rate starts fewer pods at once.",
        ("max-scale-down-rate", false) => "The lower scale-down rate gives pods up one after the other.",
        _ => return None,
    })
}

/// The patch for the cluster: annotations for the template of a Service, and a ConfigMap for what is set for
/// the whole cluster.
fn patch(changed: &[(&Knob, &str)]) -> String {
    let mut annotations = String::new();
    let mut config = String::new();
    for (knob, value) in changed {
        // In quotes: annotations and ConfigMaps hold text.
        let _ = match knob.place() {
            KnobPlace::Annotation(key) => writeln!(annotations, "        {key}: {value:?}"),
            KnobPlace::Config(key) => writeln!(config, "  {key}: {value:?}"),
        };
    }
    let mut documents = Vec::new();
    if !annotations.is_empty() {
        documents.push(format!(
            "# For the Service: kubectl patch kservice NAME --type merge --patch-file FILE\nspec:\n  template:\n    \
             metadata:\n      annotations:\n{annotations}"
        ));
    }
    if !config.is_empty() {
        documents.push(format!(
            "# For all services of the cluster:\n# kubectl patch configmap config-autoscaler -n knative-serving \
             --patch-file FILE\ndata:\n{config}"
        ));
    }
    documents.join("---\n")
}

/// For each setting, how much of the variation between everything that was tried goes with it; and for those that
/// were changed, what is lost without.
fn sensitivities(
    space: &Space,
    choice: &GridPoint,
    plan: &Plan,
    all: &[(&GridPoint, Standing)],
    search: &TuneSearch<'_>,
) -> Vec<report::Sensitivity> {
    let chosen = search.standing(choice);
    let about = |at: usize| {
        let mut without = choice.clone();
        without[at] = space.defaults()[at];
        let (Some(with), Some(without)) = (chosen, search.standing(&without)) else { return String::new() };
        if choice[at] == space.defaults()[at] {
            return String::new();
        }
        let points = |with: f64, without: f64| 100.0 * (without - with);
        format!(
            "without it, {} {:+.0} and {} {:+.0} points of the defaults'",
            plan.goal.cost,
            points(with.cost, without.cost),
            plan.goal.latency,
            points(with.latency, without.latency),
        )
    };
    let mut found: Vec<report::Sensitivity> = (space.knobs().iter().enumerate())
        .map(|(at, knob)| report::Sensitivity {
            setting: knob.name().to_owned(),
            effect_fraction: 0.5 * (explained(all, at, |s| s.cost) + explained(all, at, |s| s.latency)),
            about: about(at),
        })
        .collect();
    found.sort_by(|a, b| b.effect_fraction.total_cmp(&a.effect_fraction));
    found
}

/// The share of a value's variance that goes with one setting: between the means of its values, over all of it.
fn explained(all: &[(&GridPoint, Standing)], at: usize, value: fn(&Standing) -> f64) -> f64 {
    // Ten times the defaults is as bad as a hundred times: one outlier must not be all there is to say.
    let value = |standing: &Standing| value(standing).clamp(0.0, 10.0);
    let mut groups: BTreeMap<u16, (f64, f64)> = BTreeMap::new();
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for (point, standing) in all {
        let value = value(standing);
        let (group_sum, group_count) = groups.entry(point[at]).or_default();
        (*group_sum, *group_count) = (*group_sum + value, *group_count + 1.0);
        (sum, squares, count) = (sum + value, squares + value * value, count + 1.0);
    }
    let total = squares - sum * sum / count;
    let between: f64 = groups.values().map(|(sum, count)| sum * sum / count).sum::<f64>() - sum * sum / count;
    if total <= 1e-12 { 0.0 } else { (between / total).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(texts: &[&str]) -> Vec<Knob> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn patch_of(texts: &[&str]) -> String {
        let knobs = changed(texts);
        let changes: Vec<(&Knob, &str)> =
            knobs.iter().map(|knob| (knob, knob.values()[0].as_deref().unwrap())).collect();
        patch(&changes)
    }

    #[test]
    fn a_patch_holds_annotations_for_the_template() {
        let expected = "\
# For the Service: kubectl patch kservice NAME --type merge --patch-file FILE
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/window: \"2m\"
        autoscaling.knative.dev/min-scale: \"2\"
";
        assert_eq!(patch_of(&["window=2m", "min-scale=2"]), expected);
    }

    #[test]
    fn what_is_set_for_the_whole_cluster_is_a_document_of_its_own() {
        let patch = patch_of(&["window=2m", "max-scale-up-rate=10"]);
        let (_, config) = patch.split_once("---\n").unwrap();
        assert!(config.ends_with("data:\n  max-scale-up-rate: \"10\"\n"), "{config}");
    }

    #[test]
    fn a_setting_explains_what_its_values_differ_in() {
        let standing = |cost| Standing { cost, ..Standing::default() };
        let points = [vec![0, 0], vec![0, 1], vec![1, 0], vec![1, 1]];
        let all: Vec<(&GridPoint, Standing)> =
            points.iter().zip([1.0, 1.0, 2.0, 2.0].map(standing)).collect();
        assert_eq!(explained(&all, 0, |standing| standing.cost), 1.0);
        assert_eq!(explained(&all, 1, |standing| standing.cost), 0.0);
        assert_eq!(explained(&all, 0, |standing| standing.latency), 0.0, "nothing to explain");
    }
}
