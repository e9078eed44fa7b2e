//! An evaluation in a sentence: the load, what a pod is meant to carry, the pods that makes, and what changed the number
//! after that.

use std::time::Duration;

use crate::lifecycle::Bound;
use crate::{Decision, Evaluation, RevisionSpec, Rule, ScalingMetric, Trigger};

impl Evaluation {
    /// The evaluation in a sentence, for people: which number, from what, and which rule bound it. Each part begins in
    /// lower case, since it stands behind a colon or a number of pods.
    pub fn why(&self, spec: &RevisionSpec) -> String {
        let demand = match (self.new_decision(), self.outcome.bound) {
            (Some(decision), _) => demand(decision, self.trigger, spec),
            (None, Some(bound)) => return after_demand(bound, spec),
            (None, None) if self.decision.is_none() => "idle: no request yet".to_owned(),
            (None, None) if self.trigger == Trigger::Change => "demand unchanged".to_owned(),
            (None, None) => "no report from the pods: the last decision stands".to_owned(),
        };
        match self.outcome.bound {
            Some(bound) => format!("{demand}; {}", after_demand(bound, spec)),
            None => demand,
        }
    }
}

fn demand(decision: &Decision, trigger: Trigger, spec: &RevisionSpec) -> String {
    let unit = match spec.scaling_metric {
        ScalingMetric::Concurrency => "in flight",
        ScalingMetric::Rps => "requests/s",
    };
    let (stable, panic) = (figure(decision.stable), figure(decision.panic));
    let (stable_window, panic_window) = (seconds(spec.stable_window), seconds(spec.panic_window));
    let each = per_pod(decision, spec);
    let wanted = pods(decision.desired);
    let called_for = pods(decision.stable_demand.max(decision.panic_demand));
    match decision.rule {
        Rule::StableDemand | Rule::PanicDemand if trigger == Trigger::Demand => {
            format!("woken by a request: {panic} {unit}; {each}: {wanted}")
        }
        Rule::StableDemand if decision.is_panicking() => {
            format!(
                "panic: average {stable} {unit} over {stable_window} ({panic} over {panic_window}); {each}: {wanted}"
            )
        }
        Rule::StableDemand => format!("average {stable} {unit} over {stable_window}; {each}: {wanted}"),
        Rule::PanicDemand => {
            format!(
                "panic: average {panic} {unit} over {panic_window} ({stable} over {stable_window}); {each}: {wanted}"
            )
        }
        Rule::PanicHold => format!(
            "panic: {wanted} held until the burst has been over for {stable_window}; demand {called_for}"
        ),
        Rule::ScaleUpRate => format!(
            "demand {called_for}; limited to {} by max-scale-up-rate {}",
            decision.desired, spec.max_scale_up_rate
        ),
        Rule::ScaleDownRate => format!(
            "demand {}; not below {} by max-scale-down-rate {}",
            pods(decision.stable_demand),
            decision.desired,
            spec.max_scale_down_rate
        ),
        Rule::ActivationScale => {
            format!("demand {called_for}; raised to activation-scale {}", decision.desired)
        }
        Rule::ScaleDownDelay => format!(
            "demand {}; {} held for scale-down-delay {}",
            pods(decision.stable_demand),
            decision.desired,
            seconds(spec.scale_down_delay)
        ),
    }
}

fn after_demand(bound: Bound, spec: &RevisionSpec) -> String {
    let window = seconds(spec.stable_window);
    match bound {
        Bound::MinScale => format!("raised to min-scale {}", spec.min_scale),
        Bound::InitialScale => format!("raised to initial-scale {}", spec.initial_scale),
        Bound::MaxScale => format!("lowered to max-scale {}", spec.max_scale.unwrap_or_default()),
        Bound::ScaleToZeroOff => "one pod stays: enable-scale-to-zero is off".to_owned(),
        Bound::RecentlyActive => format!("the last pod stays until it has been needed for {window}"),
        Bound::Deactivating => {
            format!("no request for {window}: the activator takes over before the last pod goes")
        }
        Bound::AwaitingActivator => "the last pod stays until the activator answers in its place".to_owned(),
        Bound::PodRetention => format!(
            "the last pod stays for {} (scale-to-zero-pod-retention-period)",
            seconds(spec.pod_retention)
        ),
        Bound::GracePeriod => format!(
            "the last pod stays for up to {} (scale-to-zero-grace-period)",
            seconds(spec.scale_to_zero_grace_period)
        ),
        Bound::Idle => format!("no request for {window}; the next one starts a pod again"),
        Bound::ActivationTimeout => {
            format!("given up: no pod was ready within {}", seconds(spec.activation_timeout))
        }
        Bound::Activating => "pods are starting".to_owned(),
    }
}

/// `70 per pod (100 x 70 %)`; without the utilization where it is 100 %.
fn per_pod(decision: &Decision, spec: &RevisionSpec) -> String {
    // 0.7 x 3 is 2.0999999999999996, which nobody wants to read.
    let target = rounded(decision.target);
    let share = rounded(decision.target / spec.total * 100.0);
    if share == 100.0 {
        format!("{target} per pod")
    } else {
        format!("{target} per pod ({} x {share} %)", spec.total)
    }
}

fn pods(count: u32) -> String {
    if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") }
}

fn seconds(length: Duration) -> String {
    format!("{} s", length.as_secs_f64())
}

/// One decimal, or two digits of a load so small that it would read as none.
fn figure(load: f64) -> String {
    let decimals = if load > 0.0 && load < 0.95 { (1.0 - load.log10().floor()).min(6.0) as i32 } else { 1 };
    let scale = 10f64.powi(decimals);
    ((load * scale).round() / scale).to_string()
}

/// Three decimals.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_as_short_as_they_can_be_and_a_little_is_never_none() {
        let shown = [0.0, 1.0, 24.84, 0.5, 0.041_667, 0.002_5, 1e-6].map(figure);
        assert_eq!(shown, ["0", "1", "24.8", "0.5", "0.042", "0.0025", "0.000001"]);
    }
}
