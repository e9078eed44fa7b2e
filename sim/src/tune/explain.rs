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
use crate::compare::{Trials, compare};
use crate::outcome::{Metric, Outcome, Unit};
use crate::parallel::Workers;
use crate::report::{self, number};
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
    let is_stopped = judgement.is_none() && workers.is_stopped();
    let mut reason = match is_stopped {
        true => so_far(&changed, choice, search),
        false => verdict(&changed, judgement, goal.slo.is_some()),
    };
    if is_recommended {
        let contenders =
            [space.defaults(), choice].map(|point| space.settings(point).expect("both were tried"));
        let trials = Trials::seeds(plan.seed, plan.effort.worlds.max(1));
        let comparison = compare(&parts.training, &contenders, trials, workers);
        let [defaults, chosen] = [0, 1].map(|contender| &comparison.contenders[contender].outcomes[0]);
        reason += &load_in_words(parts, &contenders[0], plan.seed);
        reason += &effects_in_words(&changed, &contenders, defaults, chosen);
    }
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
        patch: if is_recommended || is_stopped { patch(&changed) } else { String::new() },
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

/// The best of a search that was stopped, which nothing but the search speaks for.
fn so_far(changed: &[(&Knob, &str)], choice: &GridPoint, search: &TuneSearch<'_>) -> String {
    let Some(standing) = search.standing(choice).filter(|_| !changed.is_empty()) else {
        return "The search was stopped: nothing that was tried so far is better than the defaults."
            .to_owned();
    };
    let names: Vec<String> = changed.iter().map(|(knob, value)| format!("{}={value}", knob.name())).collect();
    let share = |ratio: f64| number::change(1.0, ratio).unwrap_or_default();
    let (tried, worlds) = search.worlds_of(choice);
    format!(
        "The search was stopped. The best so far is {}: in {tried} of {worlds} worlds, cost {}, latency {} against the \
         defaults. It was not judged on the load held out, where it may do worse.",
        names.join(", "),
        share(standing.cost),
        share(standing.latency)
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
    let names = names.join(", ");
    let mut text = if judgement.is_recommended {
        format!("Set {names}: on the load held out, {}.", judgement.because)
    } else {
        format!(
            "Keep the defaults: {names} did best in the search, but on the load held out {}.",
            judgement.because
        )
    };
    let gains = [("cost", &judgement.cost), ("latency", &judgement.latency)];
    let [cost, latency] = gains.map(|(name, axis)| in_words(name, axis));
    let _ = write!(text, " There, {cost}; {latency}");
    let _ = match judgement.smooth.is_unharmed {
        true => write!(text, "; a smooth load of the same mean is no more than 5 % worse on either axis."),
        false => write!(text, "; on a smooth load of the same mean, one axis is more than 5 % worse."),
    };
    text
}

/// The change of an axis, in the numbers that tables have: `cost changes by −72 % (on loads like it −73 % to −69 %)`.
fn in_words(name: &str, axis: &AxisGain) -> String {
    let gain = gain(name, axis);
    let change = match gain.change().as_str() {
        "=" => format!("{name} stays as it is"),
        "" => format!("{name} changes by an amount that has no percentage, from 0"),
        change => format!("{name} changes by {change}"),
    };
    match gain.change_on_others().as_str() {
        "" => change,
        "= to =" => format!("{change} (on loads like it as well)"),
        others => format!("{change} (on loads like it {others})"),
    }
}

fn gain(metric: &str, axis: &AxisGain) -> report::Gain {
    report::Gain {
        metric: metric.to_owned(),
        defaults: axis.defaults,
        chosen: axis.chosen,
        interval: axis.change.and_then(|change| change.range),
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
        format!("{name} {before} → {after}")
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
        let points = |with: f64, without: f64| number::signed(100.0 * (without - with));
        format!(
            "without it, {} {} and {} {} points of the defaults'",
            plan.goal.cost,
            points(with.cost, without.cost),
            plan.goal.latency,
            points(with.latency, without.latency),
        )
    };
    let found = explained(all, space.knobs().len());
    let sensitivity = |(at, effect_fraction): (usize, f64)| report::Sensitivity {
        setting: space.knobs()[at].name().to_owned(),
        effect_fraction,
        about: about(at),
    };
    found.into_iter().map(sensitivity).collect()
}

/// Settings, and the share of the variance of cost and latency that goes with each beyond those before it. First comes
/// the one that explains most by itself; what the means of its values explain is taken off, and so on. What was tried
/// is no orthogonal design: shares that each setting explains by itself would be more than there is together.
fn explained(all: &[(&GridPoint, Standing)], settings: usize) -> Vec<(usize, f64)> {
    // Ten times the defaults is as bad as a hundred times: one outlier must not be all there is to say.
    let kept = |value: f64| if value.is_finite() { value.clamp(0.0, 10.0) } else { 10.0 };
    let mut axes = [
        Residuals::of(all.iter().map(|(_, standing)| kept(standing.cost))),
        Residuals::of(all.iter().map(|(_, standing)| kept(standing.latency))),
    ];
    let mut rest: Vec<usize> = (0..settings).collect();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let share =
            |at: usize| axes.iter().map(|axis| axis.explained(all, at)).sum::<f64>() / axes.len() as f64;
        let shares: Vec<f64> = rest.iter().map(|&at| share(at)).collect();
        let most =
            (0..rest.len()).fold(0, |most, next| if shares[next] > shares[most] { next } else { most });
        let at = rest.remove(most);
        axes.iter_mut().for_each(|axis| axis.take_off(all, at));
        found.push((at, shares[most]));
    }
    found
}

/// What is left of values once the means of settings are taken off.
struct Residuals {
    left: Vec<f64>,
    /// The sum of squares at the beginning.
    total: f64,
}

impl Residuals {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.collect();
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let left: Vec<f64> = values.iter().map(|value| value - mean).collect();
        let total = left.iter().map(|value| value * value).sum();
        Residuals { left, total }
    }

    /// Sum and number of what is left, by the values of a setting.
    fn groups(&self, all: &[(&GridPoint, Standing)], at: usize) -> BTreeMap<u16, (f64, f64)> {
        let mut groups: BTreeMap<u16, (f64, f64)> = BTreeMap::new();
        for ((point, _), left) in all.iter().zip(&self.left) {
            let (sum, count) = groups.entry(point[at]).or_default();
            (*sum, *count) = (*sum + left, *count + 1.0);
        }
        groups
    }

    /// The share of the variance that the means of a setting's values take off.
    fn explained(&self, all: &[(&GridPoint, Standing)], at: usize) -> f64 {
        let between: f64 = self.groups(all, at).values().map(|(sum, count)| sum * sum / count).sum();
        if self.total <= 1e-12 { 0.0 } else { (between / self.total).clamp(0.0, 1.0) }
    }

    fn take_off(&mut self, all: &[(&GridPoint, Standing)], at: usize) {
        let groups = self.groups(all, at);
        for ((point, _), left) in all.iter().zip(&mut self.left) {
            let (sum, count) = groups[&point[at]];
            *left -= sum / count;
        }
    }
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

    fn standings<'a>(points: &'a [Vec<u16>], costs: &[f64]) -> Vec<(&'a GridPoint, Standing)> {
        let standing = |&cost: &f64| Standing { cost, latency: 1.0, ..Standing::default() };
        points.iter().zip(costs.iter().map(standing)).collect()
    }

    #[test]
    fn a_setting_explains_what_its_values_differ_in() {
        let points = [vec![0, 0], vec![0, 1], vec![1, 0], vec![1, 1]];
        let all = standings(&points, &[1.0, 1.0, 2.0, 2.0]);
        // Half of both axes: there is nothing to explain in the latency.
        assert_eq!(explained(&all, 2), [(0, 0.5), (1, 0.0)]);
    }

    #[test]
    fn shares_of_settings_that_go_together_do_not_count_twice() {
        // The second setting follows the first in all but one: by itself, it explains nearly as much.
        let points = [vec![0, 0], vec![0, 0], vec![0, 0], vec![1, 1], vec![1, 1], vec![1, 0]];
        let all = standings(&points, &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        let found = explained(&all, 2);
        assert_eq!(found[0], (0, 0.5));
        assert!(found.iter().map(|(_, share)| share).sum::<f64>() <= 0.5 + 1e-12, "{found:?}");
    }
}
