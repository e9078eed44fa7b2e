//! The verdict on a choice: on load it was not chosen on, and on load without bursts.

use serde::Serialize;

use super::Plan;
use super::load::{Parts, blocks};
use super::search::{HARM, KEPT_FRACTION, TuneSearch, is_harmless};
use super::space::{GridPoint, Space};
use crate::compare::{Comparison, Difference, Interval, Noise, Trials, Verdict, compare};
use crate::parallel::Workers;

/// How a choice did on load it was not chosen on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// Whether it beats the defaults there beyond noise, on one axis at least, and is worse on neither.
    pub is_recommended: bool,
    /// Why, or why not.
    pub because: String,
    /// Cost on the held-out part as it was.
    pub cost: AxisGain,
    /// Latency on the held-out part as it was.
    pub latency: AxisGain,
    /// How often the objective is kept on the held-out part and others like it: by the defaults and by the choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo_kept: Option<(f64, f64)>,
    /// The source of differences that the intervals are about.
    pub noise: Noise,
    /// How it does on a load as great on average that has neither bursts nor silences.
    pub smooth: Smooth,
}

/// One metric of the choice against the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AxisGain {
    /// With the defaults.
    pub defaults: f64,
    /// With the choice.
    pub chosen: f64,
    /// The change as a share of the defaults', on loads like the held-out part, with its 95 % interval.
    pub change: Option<Interval>,
}

/// Results of both contenders on smooth loads: pairs of cost and latency, the latter as clients feel it (`p95` for
/// `wait-p95`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Smooth {
    /// With the defaults.
    pub defaults: (f64, f64),
    /// With the choice.
    pub chosen: (f64, f64),
    /// Whether neither axis is more than 5 % worse.
    pub is_unharmed: bool,
}

pub(super) fn judge(
    parts: &Parts,
    space: &Space,
    choice: &GridPoint,
    plan: &Plan,
    search: &TuneSearch<'_>,
    workers: &mut Workers<'_>,
) -> Judgement {
    let contenders = [space.defaults(), choice].map(|point| space.settings(point).expect("both were tried"));
    // Seeds that the search has not used.
    let first_seed = plan.seed.wrapping_add(u64::from(plan.effort.worlds)).wrapping_add(FRESH);
    let as_it_was = Trials::seeds(first_seed, plan.effort.trials.clamp(2, AS_IT_WAS));
    let as_it_was = compare(&parts.held_out, &contenders, as_it_was, workers);
    let like_it = Trials {
        blocks: blocks(&parts.held_out, first_seed),
        ..Trials::seeds(first_seed, plan.effort.trials.max(2))
    };
    let like_it = compare(&parts.held_out, &contenders, like_it, workers);
    let goal = &plan.goal;
    let axis = |metric: &str| GoalAxis {
        as_it_was: difference(&as_it_was, metric),
        like_it: difference(&like_it, metric),
    };
    let (cost, latency) = (axis(&goal.cost), axis(&goal.latency));
    let slo_kept = goal.slo.as_ref().map(|slo| {
        let kept = |contender: usize| {
            let outcomes = &like_it.contenders[contender].outcomes;
            let kept = outcomes.iter().filter(|outcome| slo.evaluate(outcome).holds).count();
            kept as f64 / outcomes.len() as f64
        };
        (kept(0), kept(1))
    });
    let failed_more = difference(&as_it_was, "errors").change.mean > 0.0;
    let (defaults, chosen) = search.smooth(choice).expect("both were tried");
    let is_unharmed = is_harmless(chosen, defaults, HARM);
    let verdict = if !is_unharmed {
        Err("it does harm to a load without bursts")
    } else if failed_more {
        Err("more requests fail with it")
    } else {
        verdict(&cost, &latency, slo_kept)
    };
    Judgement {
        is_recommended: verdict.is_ok(),
        because: verdict.unwrap_or_else(|reason| reason).to_owned(),
        cost: cost.gain(),
        latency: latency.gain(),
        slo_kept,
        noise: like_it.noise,
        smooth: Smooth { defaults, chosen, is_unharmed },
    }
}

/// One metric of both contenders.
struct GoalAxis {
    /// On the held-out part.
    as_it_was: Difference,
    /// On others like it.
    like_it: Difference,
}

impl GoalAxis {
    fn gain(&self) -> AxisGain {
        AxisGain {
            defaults: self.as_it_was.baseline.mean,
            chosen: self.as_it_was.contender.mean,
            change: self.like_it.relative,
        }
    }

    fn is_better(&self) -> bool {
        self.as_it_was.change.mean < 0.0 && self.like_it.verdict == Verdict::Better
    }

    fn is_no_worse(&self) -> bool {
        self.as_it_was.change.mean <= 0.0 && self.like_it.change.mean <= 0.0
    }
}

fn verdict(
    cost: &GoalAxis,
    latency: &GoalAxis,
    slo_kept: Option<(f64, f64)>,
) -> Result<&'static str, &'static str> {
    if let Some((defaults, chosen)) = slo_kept {
        return if chosen < KEPT_FRACTION {
            Err("it does not keep the objective surely enough")
        } else if defaults < KEPT_FRACTION {
            Ok("it keeps the objective, and the defaults do not")
        } else if cost.is_better() {
            Ok("it keeps the objective, as the defaults do, and costs less beyond noise")
        } else {
            Err("the defaults keep the objective too, and it does not cost less beyond noise")
        };
    }
    match (cost.is_better(), latency.is_better()) {
        (true, true) => Ok("it is cheaper and faster, both beyond noise"),
        (true, false) if latency.is_no_worse() => Ok("it is cheaper beyond noise, and no slower"),
        (false, true) if cost.is_no_worse() => Ok("it is faster beyond noise, and no dearer"),
        (true, false) => Err("it is cheaper, and slower"),
        (false, true) => Err("it is faster, and dearer"),
        (false, false) => Err("what it gained on the training part may be chance"),
    }
}

fn difference(comparison: &Comparison, metric: &str) -> Difference {
    comparison.difference(1, metric).expect("it was measured in the search")
}

/// Far from the seeds of the search.
const FRESH: u64 = 1_000_000;

/// Seeds on the held-out part as it was: they vary start-up times and drawn work only.
const AS_IT_WAS: u32 = 10;
